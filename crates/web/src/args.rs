//! The flags of every program for HTTP.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// Where to answer HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Nowhere.
    Off,
    /// At the default address and port of the program.
    Default,
    /// At this address, and the default port of the program unless there is another.
    At(IpAddr, Option<u16>),
}

/// Flags that every program has for HTTP.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpArgs {
    /// Answer HTTP: a page, metrics, JSON [default: off]
    ///
    /// ADDR is an IP address, a port, or both. Without ADDR, only this machine can connect (127.0.0.1). Nobody is asked for a password, and
    /// nothing can be changed without --http-token.
    #[arg(
        long, value_name = "ADDR", num_args = 0..=1, require_equals = true, default_missing_value = "default",
        value_parser = parse_address, env = "SHOAL_HTTP", hide_short_help = true
    )]
    pub http: Option<Address>,

    /// Name that this machine is reached by over HTTP (repeatable)
    ///
    /// Requests that name another host are refused. IP addresses, localhost and the machine's own name are always good.
    #[arg(
        long = "http-host",
        value_name = "NAME",
        value_delimiter = ',',
        env = "SHOAL_HTTP_HOST",
        hide_short_help = true
    )]
    pub http_hosts: Vec<String>,

    /// File with the secret that requests must show to change something
    ///
    /// Who has it may add and remove shares, change limits and stop the program. Other users must not be able to read the file.
    #[arg(long, value_name = "FILE", env = "SHOAL_HTTP_TOKEN", requires = "http", hide_short_help = true)]
    pub http_token: Option<PathBuf>,
}

impl HttpArgs {
    /// Where to listen; `None` if nowhere. `port` is the default port of the program.
    pub fn listen_at(&self, port: u16) -> Option<SocketAddr> {
        match self.http.unwrap_or(Address::Off) {
            Address::Off => None,
            Address::Default => Some((Ipv4Addr::LOCALHOST, port).into()),
            Address::At(ip, other) => Some((ip, other.unwrap_or(port)).into()),
        }
    }
}

/// Reads `ADDR`, `ADDR:PORT` or `PORT`. Environment variables also say yes or no.
fn parse_address(text: &str) -> Result<Address, String> {
    let at = |ip: IpAddr, port| Ok(Address::At(ip, port));
    if let Ok(address) = text.parse::<SocketAddr>() {
        return at(address.ip(), Some(address.port()));
    }
    if let Ok(ip) = text.parse() {
        return at(ip, None);
    }
    match text.strip_prefix(':').unwrap_or(text).parse() {
        Ok(0 | 1) if !text.starts_with(':') => {}
        Ok(port) => return at(Ipv4Addr::LOCALHOST.into(), Some(port)),
        Err(_) => {}
    }
    match text.to_ascii_lowercase().as_str() {
        "default" | "true" | "yes" | "on" | "1" => Ok(Address::Default),
        "" | "false" | "no" | "off" | "0" => Ok(Address::Off),
        _ => Err("it must be an IP address of this machine, a port, or both".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        http: HttpArgs,
        path: Option<String>,
    }

    #[test]
    fn an_address_a_port_both_or_neither() {
        let at = |arguments: &[&str]| {
            let args = Args::try_parse_from([&["program"], arguments].concat()).unwrap();
            (args.http.listen_at(6020).map(|address| address.to_string()), args.path)
        };
        let address = |text| at(&[text]).0.unwrap();
        assert_eq!(at(&[]), (None, None));
        assert_eq!(at(&["--http", "path"]), (Some("127.0.0.1:6020".to_owned()), Some("path".to_owned())));
        assert_eq!(address("--http=0.0.0.0"), "0.0.0.0:6020");
        assert_eq!(address("--http=::1"), "[::1]:6020");
        assert_eq!(address("--http=[::]:80"), "[::]:80");
        assert_eq!(address("--http=192.0.2.1:80"), "192.0.2.1:80");
        assert_eq!(address("--http=8080"), "127.0.0.1:8080");
        assert_eq!(address("--http=:0"), "127.0.0.1:0");
        assert_eq!(at(&["--http=off"]).0, None);
        assert!(Args::try_parse_from(["program", "--http=example.com"]).is_err());
    }
}
