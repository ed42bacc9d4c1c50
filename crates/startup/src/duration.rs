//! Times on a command line.

use std::time::Duration;

use crate::human::human_time;

/// The text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// It is not a time.
    #[error("write a time as in 90, 90s, 10m or 2h; a number alone is seconds")]
    Malformed,
    /// It is out of range.
    #[error("it must be from {} to {}", human_time(*.0), human_time(*.1))]
    OutOfRange(Duration, Duration),
}

/// The longest time that a flag accepts, a year. Sums with it never overflow.
const MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Reads a time: `90` and `90s` are seconds; `10m`, `2h`, `1h 30m` and every other form of humantime are accepted too.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    parse_in_range(text, Duration::ZERO, MAX)
}

/// Reads a time of a second or more.
pub fn parse_timeout(text: &str) -> Result<Duration, ParseDurationError> {
    parse_in_range(text, Duration::from_secs(1), MAX)
}

/// Reads a time between two bounds.
pub fn parse_in_range(text: &str, min: Duration, max: Duration) -> Result<Duration, ParseDurationError> {
    let text = text.trim();
    let seconds = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let time = match seconds {
        Some(seconds) => Duration::from_secs(seconds),
        None => humantime::parse_duration(text).map_err(|_| ParseDurationError::Malformed)?,
    };
    if (min..=max).contains(&time) { Ok(time) } else { Err(ParseDurationError::OutOfRange(min, max)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_syntax_for_all_times() {
        let seconds = |text| parse_duration(text).map(|time| time.as_secs());
        for (text, expected) in
            [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7_200), ("1h 30m", 5_400), ("0", 0)]
        {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "x", "-1", "+1", "1 parsec", "1.5", "99999999999999999999"] {
            assert_eq!(seconds(text), Err(ParseDurationError::Malformed), "{text}");
        }
    }

    #[test]
    fn bounds_are_named() {
        let error = parse_timeout("0").unwrap_err();
        assert_eq!(error.to_string(), "it must be from 1s to 365d");
        assert!(parse_timeout("2years").is_err() && parse_timeout("500ms").is_err());
    }
}
