//! Types and limits that the errors, events and settings of this crate name.

pub use leecher::{Exceeded, ParseTargetError};
pub use peer::rate_limit::ParseRateError;
pub use proto::{
    CHUNK_LEN, ChunkIndex, PeerId,
    bitfield::BitfieldError,
    chunk::{MAX_CHUNKS, MAX_SHARE_LEN, TooLargeError},
    endpoint::ParseEndpointError,
    id::ParseInfoHashError,
    link::{MAX_ENDPOINTS, ParseLinkError},
    metainfo::{MAX_DEPTH, MAX_METAINFO_LEN, MetainfoError},
    name::{MAX_NAME_LEN, NameError},
    peer::{GoodbyeReason, Hello, PeerMessage, RejectReason, Role},
    tracker::{
        client::CallError,
        message::{ErrorCode, Limit},
    },
};
pub use store::{FileChange, HashesError, SpecialKind, Stopped};

#[cfg(test)]
mod tests {
    use std::{error::Error, io, sync::Arc};

    use super::*;
    use crate::{
        DownloadError, Endpoint, Link, ListenError, PathError, PeerNameError, ScanError, ShareError,
        ShareName, TrackerError,
    };

    #[test]
    fn no_error_has_its_cause_both_in_its_text_and_as_its_source() {
        let system = || io::Error::other("the cause");
        let endpoint = || "192.0.2.1:6020".parse::<Endpoint>().unwrap();
        let path = || PathError { action: "write", path: "file".into(), source: system() };
        let no_name = || ShareName::new("..").unwrap_err();
        let topic = format!("magnet:?xt=urn:btmh:1220{}", "07".repeat(32));
        let errors: Vec<Box<dyn Error>> = vec![
            TrackerError::Call { endpoint: endpoint(), error: CallError::Unanswered }.into(),
            TrackerError::Unreachable { endpoint: endpoint(), error: Arc::new(system()) }.into(),
            PeerNameError { peer: endpoint(), error: Arc::new(system()) }.into(),
            ListenError::Other { address: ([192, 0, 2, 1], 7000).into(), error: system() }.into(),
            ShareError::HashCache { path: "cache".into(), error: system() }.into(),
            ScanError::Name { path: "file".into(), error: no_name() }.into(),
            DownloadError::NotDurable(Arc::new(path())).into(),
            DownloadError::NotClaimed(path()).into(),
            path().into(),
            format!("{topic}&dn=%2e%2e").parse::<Link>().unwrap_err().into(),
            format!("{topic}&x.pe=nowhere").parse::<Link>().unwrap_err().into(),
            MetainfoError::from(no_name()).into(),
        ];
        for error in errors {
            let (text, source) = (error.to_string(), error.source().map(ToString::to_string));
            assert!(source.as_ref().is_none_or(|source| !text.contains(source)), "{text}: {source:?}");
        }
    }
}
