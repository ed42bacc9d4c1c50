//! What docs/json.md says, to compare with real events.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The event of each heading, with the heading above it.
fn examples() -> BTreeMap<String, (String, Value)> {
    let page = include_str!("../../../../docs/json.md");
    let parts = page.split("\n## ").skip(1);
    let events = parts.flat_map(|part| {
        let (heading, rest) = part.split_once('\n').unwrap();
        rest.split("\n### ").skip(1).map(move |section| {
            let (event, rest) = section.split_once('\n').unwrap();
            let example = rest.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
            (event.to_owned(), (heading.to_owned(), serde_json::from_str(example).unwrap()))
        })
    });
    events.collect()
}

/// The events of these parts of the page.
fn events_of(headings: &[&str]) -> BTreeSet<String> {
    let of_them = |(event, (heading, _)): (String, (String, Value))| {
        headings.contains(&heading.as_str()).then_some(event)
    };
    examples().into_iter().filter_map(of_them).collect()
}

/// Checks that a line is an event of the page, with the keys and the kinds of values that it has there.
pub(crate) fn check(line: &str) -> Value {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let (_, example) =
        examples().remove(event["event"].as_str().unwrap()).unwrap_or_else(|| panic!("{line}"));
    let mut bare = event.clone();
    bare.as_object_mut().unwrap().remove("target");
    same_shape(line, &example, &bare);
    let ts = event["ts"].as_str().unwrap();
    assert!(ts.len() == "2026-11-28T02:15:54.123Z".len() && ts.ends_with('Z'), "{line}");
    event
}

/// Checks that the events are those of these parts of the page, but for `others`, which cannot be caused in a test.
pub(crate) fn assert_complete(events: &[Value], headings: &[&str], others: &[&str]) {
    let mut missing = events_of(headings);
    for event in events {
        missing.remove(event["event"].as_str().unwrap());
    }
    for other in others {
        assert!(missing.remove(*other), "{other} was printed, or is not on the page");
    }
    assert!(missing.is_empty(), "on the page and not printed: {missing:?}");
}

/// Whether both have the same keys with values of the same kinds. Nothing (`null`, an empty list) may be anything.
fn same_shape(at: &str, example: &Value, event: &Value) {
    match (example, event) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(example), Value::Object(event)) => {
            let (keys, expected): (Vec<_>, Vec<_>) = (event.keys().collect(), example.keys().collect());
            assert_eq!(keys, expected, "{at}");
            for (key, value) in example {
                same_shape(at, value, &event[key]);
            }
        }
        (Value::Array(example), Value::Array(event)) => {
            for event in event {
                example.iter().for_each(|example| same_shape(at, example, event));
            }
        }
        (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => {}
        _ => panic!("{event} is not like {example}: {at}"),
    }
}
