//! Metrics in the two text formats of Prometheus.
//!
//! Programs count for themselves, and hand over plain numbers when somebody asks. `prometheus-client` writes them as OpenMetrics. Tools
//! that do not ask for that receive the older text format, which differs in three ways (see [`text`]).

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

/// One metric with its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// The name, with its unit last, and without the `_total` of a counter.
    pub name: &'static str,
    /// What it is, as a sentence.
    pub help: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// Its values.
    pub samples: Vec<Sample>,
}

/// What a metric does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the program ends.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A value, and the labels that tell it from the others of its metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name and value of each label.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Metric {
    /// A counter with one value.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Metric {
        Metric {
            name,
            help,
            kind: Kind::Counter,
            samples: vec![Sample { labels: Vec::new(), value: float(value) }],
        }
    }

    /// A gauge with one value.
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Metric {
        Metric { kind: Kind::Gauge, ..Metric::counter(name, help, value) }
    }

    /// A counter with a value for each value of one label.
    pub fn counters(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: &[(&str, u64)],
    ) -> Metric {
        let sample =
            |&(of, value): &(&str, u64)| Sample { labels: vec![(label, of.to_owned())], value: float(value) };
        Metric { name, help, kind: Kind::Counter, samples: values.iter().map(sample).collect() }
    }

    /// A gauge with a value for each value of one label.
    pub fn gauges(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: &[(&str, u64)],
    ) -> Metric {
        Metric { kind: Kind::Gauge, ..Metric::counters(name, help, label, values) }
    }
}

/// Prometheus has no other numbers. Beyond 2^53 they are rounded.
fn float(value: u64) -> f64 {
    value as f64
}

/// These metrics as OpenMetrics.
pub(crate) fn open_metrics(metrics: Vec<Metric>) -> Result<String, fmt::Error> {
    let (mut registry, mut text) = (Registry::default(), String::new());
    registry.register_collector(Box::new(Collected(metrics)));
    encode(&mut text, &registry)?;
    Ok(text)
}

/// These metrics in the text format of Prometheus, version 0.0.4. There the name of a counter ends in `_total` everywhere, and units and
/// the end of the text are not marked.
pub(crate) fn text(metrics: Vec<Metric>) -> Result<String, fmt::Error> {
    let is_counter =
        |name: &str| metrics.iter().any(|metric| metric.name == name && metric.kind == Kind::Counter);
    let mut text = String::new();
    for line in open_metrics(metrics.clone())?.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => continue,
            (Some("#"), Some(what), Some(name), Some(rest)) if is_counter(name) => {
                text.push_str(&format!("# {what} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    Ok(text)
}

#[derive(Debug)]
struct Collected(Vec<Metric>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Metric { name, help, kind, samples } in &self.0 {
            let kind_of = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind_of)?;
            for Sample { labels, value } in samples {
                if labels.is_empty() {
                    encode_value(&mut metric, *kind, *value)?;
                    continue;
                }
                let labels: Vec<_> = labels.iter().map(|(name, of)| (*name, escaped(of))).collect();
                encode_value(&mut metric.encode_family(&labels)?, *kind, *value)?;
            }
        }
        Ok(())
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> fmt::Result {
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        Kind::Gauge => metric.encode_gauge(&value),
    }
}

/// `prometheus-client` 0.24 writes the values of labels as they are.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Vec<Metric> {
        vec![
            Metric::counters("shoal_things", "Things so far.", "kind", &[("good", 3), ("ba\"d\n", 0)]),
            Metric::gauge("shoal_room_bytes", "Bytes of room.", 1 << 40),
        ]
    }

    #[test]
    fn open_metrics_are_as_their_specification_wants_them() {
        assert_eq!(
            open_metrics(metrics()).unwrap(),
            "# HELP shoal_things Things so far.\n# TYPE shoal_things counter\n\
             shoal_things_total{kind=\"good\"} 3.0\nshoal_things_total{kind=\"ba\\\"d\\n\"} 0.0\n\
             # HELP shoal_room_bytes Bytes of room.\n# TYPE shoal_room_bytes gauge\n\
             shoal_room_bytes 1099511627776.0\n# EOF\n"
        );
    }

    #[test]
    fn the_older_format_names_counters_in_full() {
        assert_eq!(
            text(metrics()).unwrap(),
            "# HELP shoal_things_total Things so far.\n# TYPE shoal_things_total counter\n\
             shoal_things_total{kind=\"good\"} 3.0\nshoal_things_total{kind=\"ba\\\"d\\n\"} 0.0\n\
             # HELP shoal_room_bytes Bytes of room.\n# TYPE shoal_room_bytes gauge\n\
             shoal_room_bytes 1099511627776.0\n"
        );
    }
}
