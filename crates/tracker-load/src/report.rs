//! Results, for people and for scripts.

use serde_json::{Map, Value, json};
use startup::print_line;

use crate::load::Tally;

/// The format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line for each figure.
    Text,
    /// One JSON object in one line.
    Json,
}

/// Figures by name, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Map<String, Value>,
}

impl Report {
    pub(crate) fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Adds a figure, rounded to the precision of such a measurement.
    pub(crate) fn add_rounded(&mut self, name: &str, value: f64) {
        self.add(name, json!((value * 1_000.0).round() / 1_000.0));
    }

    /// Adds the counts of `seconds`, with `prefix` before each name.
    pub(crate) fn add_tally(&mut self, prefix: &str, tally: &Tally, seconds: f64) {
        let replies = tally.replies();
        let mut add = |name: &str, value: Value| self.add(&format!("{prefix}{name}"), value);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "figures for people"
        )]
        let per_second = (replies as f64 / seconds).round() as u64;
        add("responses_per_s", per_second.into());
        for (name, count) in ["connect", "announce", "lookup", "search"].into_iter().zip(tally.answered) {
            add(name, count.into());
        }
        for (name, count) in [
            ("unknown_share", tally.unknown),
            ("refused", tally.refused),
            ("token_refused", tally.token_refused),
            ("slowed", tally.slowed),
            ("lost", tally.lost),
            ("strange", tally.strange),
        ] {
            add(name, count.into());
        }
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let lost_percent = 100.0 * tally.lost as f64 / (replies + tally.lost).max(1) as f64;
        add("lost_percent", json!((lost_percent * 1_000.0).round() / 1_000.0));
        for (name, quantile) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
            add(name, tally.latency.value_at_quantile(quantile).into());
        }
        add("max_us", tally.latency.max().into());
    }

    pub(crate) fn print(&self, form: Form) {
        match form {
            Form::Json => print_line(Value::from(self.figures.clone())),
            Form::Text => {
                for (name, value) in &self.figures {
                    print_line(format_args!("{name:24}{value}"));
                }
            }
        }
    }
}
