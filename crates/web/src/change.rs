//! What a program makes of a request that changes something.

use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Why a change is not made. Each has a text for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The body is not what is documented.
    #[error("{0}")]
    Malformed(String),
    /// There is no such share, or nothing that can be changed in this way.
    #[error("{0}")]
    Unknown(String),
    /// The operator does not allow it.
    #[error("{0}")]
    Forbidden(String),
    /// It cannot be done now.
    #[error("{0}")]
    Conflict(String),
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
            Refusal::Unknown(_) => StatusCode::NOT_FOUND,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::Conflict(_) => StatusCode::CONFLICT,
        }
    }
}

/// Reads the body of a request: a JSON object. A key that `T` does not have is an error if `T` denies unknown fields.
pub fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::Malformed(error.to_string());
    // By way of a map, because a list would be taken for the values of all fields.
    let object: Map<String, Value> = serde_json::from_slice(body).map_err(malformed)?;
    serde_json::from_value(Value::Object(object)).map_err(malformed)
}

/// What a request says of one setting, which may have no value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Setting {
    /// Nothing: it stays as it is.
    #[default]
    Same,
    /// `null`: no limit.
    None,
    /// A number, or a text as on the command line.
    Value(String),
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Setting, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number, a text as on the command line, or null")]
        enum Given {
            Number(u64),
            Text(String),
        }
        Ok(match Option::deserialize(deserializer)? {
            None => Setting::None,
            Some(Given::Number(number)) => Setting::Value(number.to_string()),
            Some(Given::Text(text)) => Setting::Value(text),
        })
    }
}

impl Setting {
    /// The new value, read by `parse`, or `none` for `null`; nothing if it stays.
    pub fn read<T, E: ToString>(
        &self,
        none: T,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Refusal> {
        match self {
            Setting::Same => Ok(None),
            Setting::None => Ok(Some(none)),
            Setting::Value(text) => {
                parse(text).map(Some).map_err(|error| Refusal::Malformed(error.to_string()))
            }
        }
    }
}

/// Reads a body that has no keys.
pub(crate) fn read_empty(body: &[u8]) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Empty {}
    read_body::<Empty>(body).map(|Empty {}| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq, Eq)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        #[serde(default)]
        rate: Setting,
    }

    #[test]
    fn a_setting_stays_ends_or_changes() {
        let limits = |body: &str| read_body::<Limits>(body.as_bytes()).map(|limits| limits.rate);
        assert_eq!(limits("{}"), Ok(Setting::Same));
        assert_eq!(limits(r#"{"rate": null}"#), Ok(Setting::None));
        assert_eq!(limits(r#"{"rate": 1000}"#), Ok(Setting::Value("1000".to_owned())));
        assert_eq!(limits(r#"{"rate": "10M"}"#), Ok(Setting::Value("10M".to_owned())));
        for bad in
            ["", "{", "[]", "7", r#"{"rate": -1}"#, r#"{"rate": []}"#, r#"{"rates": 1}"#, r#"{"rate": 1} x"#]
        {
            assert!(matches!(limits(bad), Err(Refusal::Malformed(_))), "{bad}");
        }
        let read = |setting: Setting| setting.read(None, |text| text.parse::<u8>().map(Some));
        assert_eq!(read(Setting::Same), Ok(None));
        assert_eq!(read(Setting::None), Ok(Some(None)));
        assert_eq!(read(Setting::Value("7".to_owned())), Ok(Some(Some(7))));
        assert!(matches!(read(Setting::Value("x".to_owned())), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn a_body_without_keys_has_none() {
        assert_eq!(read_empty(b"{}"), Ok(()));
        assert!(read_empty(b"").is_err() && read_empty(br#"{"a":1}"#).is_err());
    }
}
