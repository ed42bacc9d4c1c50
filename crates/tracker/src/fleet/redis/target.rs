//! Where the store is, and why it did not do what it was asked for.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError};
use tokio::net::lookup_host;

/// Where the store is, and who this tracker is there.
#[derive(Clone)]
pub struct Target {
    pub(super) info: ConnectionInfo,
}

/// The user of the store, and the password.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The user; the default one if there is none.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
}

/// Why the store did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It will not work by itself either: a wrong password, address or version.
    #[error("{0}")]
    Unusable(String),
    /// It does not answer, or serves nobody now.
    #[error("{0}")]
    Lost(String),
    /// It has no memory left.
    #[error("it is full: {0}")]
    Full(String),
}

impl Target {
    /// Reads a URL like `redis://host:6379`, `rediss://host` or `valkey://host/2`. A user or a password in it counts less than those given.
    pub fn new(url: &str, credentials: Credentials) -> Result<Target, StoreError> {
        let info = url.into_connection_info().map_err(|error| StoreError::Unusable(error.to_string()))?;
        if matches!(info.addr(), ConnectionAddr::Unix(_)) {
            return Err(StoreError::Unusable("a path is no place for trackers on other machines".to_owned()));
        }
        let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(user) = credentials.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = credentials.password {
            settings = settings.set_password(password);
        }
        Ok(Target { info: info.set_redis_settings(settings) })
    }

    fn host(&self) -> (&str, u16) {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host, *port),
            // Refused by `Target::new`, and there are no others.
            _ => ("", 0),
        }
    }

    /// The address at which the store sees this host. Other machines reach it there too, as far as anybody can know here.
    pub(in crate::fleet) async fn own_ip(&self) -> Option<IpAddr> {
        let addresses: Vec<SocketAddr> = lookup_host(self.host()).await.ok()?.collect();
        addresses.into_iter().find_map(|address| {
            let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(any).ok()?;
            // This sends nothing.
            socket.connect(address).ok()?;
            socket.local_addr().ok().map(|address| address.ip())
        })
    }
}

impl fmt::Display for Target {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = self.host();
        write!(f, "{host}:{port}")
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> StoreError {
        let text = error.to_string();
        let codes: Vec<String> = match error.clone().into_server_errors() {
            Some(errors) => errors.iter().map(|(_, error)| error.code().to_owned()).collect(),
            None => error.code().map(str::to_owned).into_iter().collect(),
        };
        let is_one_of = |known: &[&str]| codes.iter().any(|code| known.contains(&code.as_str()));
        let is_unusable =
            matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig);
        if is_unusable || is_one_of(&["NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "WRONGTYPE"]) {
            StoreError::Unusable(text)
        } else if is_one_of(&["OOM"]) {
            StoreError::Full(text)
        } else {
            StoreError::Lost(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<String, StoreError> {
        Target::new(url, Credentials::default()).map(|target| target.to_string())
    }

    #[test]
    fn a_url_names_a_host_and_its_password_is_never_shown() {
        assert_eq!(target("redis://store.example").unwrap(), "store.example:6379");
        assert_eq!(target("rediss://user:hidden@store.example:7000/2").unwrap(), "store.example:7000");
        let credentials = Credentials { user: None, password: Some("hidden".to_owned()) };
        let target = Target::new("valkey://[::1]:1", credentials).unwrap();
        assert!(!format!("{target:?} {target}").contains("hidden"));
        for url in ["", "store.example", "http://store.example", "unix:///run/redis.sock", "redis://:99999"] {
            assert!(matches!(self::target(url), Err(StoreError::Unusable(_))), "{url}");
        }
    }
}
