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
