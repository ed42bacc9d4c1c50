//! Who may change something over HTTP: whoever shows the token.
//!
//! A browser sends no `Authorization` of its own accord, so a page of another site could not use a visitor's token. Its requests are refused
//! nevertheless, by their `Origin` and by the kind of their body.

use std::path::Path;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::token::{TokenError, TokenFile};

/// What lets requests through that change something.
#[derive(Debug, Clone)]
pub(crate) enum Gate {
    /// Nobody may.
    Closed,
    /// Whoever shows the token in this file.
    Token(TokenFile),
}

/// Why a request may not change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("this request comes from a page of another site")]
    OtherSite,
    #[error("nothing can be changed here: the program was started without --http-token")]
    Closed,
    #[error("the token file cannot be used; the log of the program says why")]
    NoToken,
    #[error("show the token: Authorization: Bearer TOKEN")]
    Unproved,
    #[error("this is not the token")]
    WrongToken,
    #[error("the body has to be application/json")]
    NotJson,
}

impl Gate {
    /// Opens to the token in a file, if there is one.
    pub(crate) fn new(token: Option<&Path>) -> Result<Gate, TokenError> {
        Ok(match token {
            Some(path) => Gate::Token(TokenFile::new(path)?),
            None => Gate::Closed,
        })
    }

    /// Whether a request with these headers may change something. It reads a file.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> Result<(), Denied> {
        if !is_from_here(headers) {
            return Err(Denied::OtherSite);
        }
        let Gate::Token(file) = self else { return Err(Denied::Closed) };
        let token = file.read().map_err(|error| {
            tracing::warn!("nothing can be changed over HTTP: {error}");
            Denied::NoToken
        })?;
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else { return Err(Denied::Unproved) };
        if !token.is(bearer(shown).ok_or(Denied::Unproved)?) {
            return Err(Denied::WrongToken);
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Denied::NotJson) }
    }
}

impl Denied {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Denied::OtherSite | Denied::Closed | Denied::NoToken => StatusCode::FORBIDDEN,
            Denied::Unproved | Denied::WrongToken => StatusCode::UNAUTHORIZED,
            Denied::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// What follows the word `Bearer`.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Whether no page sent the request, or one of the same host and port. A proxy may have its own scheme.
fn is_from_here(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (origin, host, origins.next()) {
        (Some(("http" | "https", origin)), Some(host), None) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        let host = (header::HOST, "localhost:6020");
        assert!(is_from_here(&headers(std::slice::from_ref(&host))));
        for good in ["http://localhost:6020", "https://localhost:6020", "http://LOCALHOST:6020"] {
            assert!(is_from_here(&headers(&[host.clone(), (header::ORIGIN, good)])), "{good}");
        }
        for bad in [
            "null",
            "",
            "http://localhost",
            "http://localhost:6021",
            "http://evil.example",
            "http://localhost:6020.evil.example",
            "file://localhost:6020",
        ] {
            assert!(!is_from_here(&headers(&[host.clone(), (header::ORIGIN, bad)])), "{bad}");
        }
        let own = (header::ORIGIN, "http://localhost:6020");
        assert!(!is_from_here(&headers(&[host, own.clone(), (header::ORIGIN, "http://evil.example")])));
        assert!(!is_from_here(&headers(&[own])), "without a host");
    }

    #[test]
    fn a_token_is_shown_as_a_bearer_s() {
        let shown = |text: &str| bearer(&text.parse().unwrap()).map(str::to_owned);
        assert_eq!(shown("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(shown("bearer abc").as_deref(), Some("abc"));
        for bad in ["", "abc", "Basic abc", "Bearerabc"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
