//! Bytes and times as people read them.

use std::{fmt, time::Duration};

/// A number of bytes as people read it, in powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanBytes(pub u64);

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        indicatif::BinaryBytes(self.0).fmt(f)
    }
}

/// Reads a number of bytes: a number, and `K`, `M` or `G` (powers of 1000; `KB` … too), or `KiB`, `MiB` or `GiB` (powers of 1024).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1_000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes.ok_or_else(|| "it must be a number of bytes, as in 65536, 64KiB, 4MiB or 2MB".to_owned())
}

/// "45s", "12m 5s", "3h", "2d 4h": two units at most.
pub fn human_time(time: Duration) -> String {
    let s = time.as_secs();
    let (large, unit, small, small_unit) = match s {
        0..60 => return format!("{s}s"),
        60..3_600 => (s / 60, 'm', s % 60, 's'),
        3_600..86_400 => (s / 3_600, 'h', s / 60 % 60, 'm'),
        _ => (s / 86_400, 'd', s / 3_600 % 24, 'h'),
    };
    if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit} {small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (text, bytes) in [("7", 7), ("64KiB", 65_536), ("2 MB", 2_000_000), ("1g", 1_000_000_000)] {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for text in ["", "MiB", "-1", "1.5M", "1T", "99999999999G"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m 1s"),
            (3_600, "1h"),
            (90_000, "1d 1h"),
            (u64::MAX, "213503982334601d 7h"),
        ] {
            assert_eq!(human_time(Duration::from_secs(seconds)), text);
        }
    }
}
