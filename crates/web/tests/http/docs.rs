//! What docs/http.md says, to compare with real answers.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

fn docs() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/http.md");
    fs::read_to_string(path).unwrap()
}

/// The documented metrics whose names begin with `prefix`.
pub(crate) fn metrics(prefix: &str) -> BTreeSet<String> {
    let docs = docs();
    let names = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
}

/// The names of the metrics in an answer. Each must have a help and a type.
pub(crate) fn names_in(answer: &str) -> BTreeSet<String> {
    let names: BTreeSet<_> = answer
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect();
    for name in &names {
        for what in ["HELP", "TYPE"] {
            assert!(answer.contains(&format!("# {what} {name} ")), "{name} has no {what} in\n{answer}");
        }
    }
    names
}

/// Checks an answer against the example below the heading `### WHO: ...`.
pub(crate) fn check(heading: &str, answer: &str) -> Value {
    let docs = docs();
    let section = docs.split(&format!("\n### {heading}\n")).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let example = section.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let example: Value = serde_json::from_str(example).unwrap();
    let answer: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    same_shape(heading, &example, &answer);
    answer
}

/// Whether both have the same keys with values of the same kinds. Nothing (`null`, an empty list) may be anything.
fn same_shape(at: &str, example: &Value, answer: &Value) {
    match (example, answer) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(example), Value::Object(answer)) => {
            let keys =
                |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(answer), keys(example), "{at}");
            for (key, value) in example {
                same_shape(&format!("{at}.{key}"), value, &answer[key]);
            }
        }
        (Value::Array(example), Value::Array(answer)) => {
            if let (Some(example), Some(answer)) = (example.last(), answer.last()) {
                same_shape(&format!("{at}[]"), example, answer);
            }
        }
        (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => {}
        _ => panic!("{at} is {answer}, not like {example}"),
    }
}
