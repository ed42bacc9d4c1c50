//! The flags for limits of a tracker.

use std::num::NonZeroU32;

use clap::value_parser;
use startup::parse_bytes;
use tracker::{DEFAULT_RATE, DEFAULT_RECEIVE_BUFFER_LEN, Limits};

/// Bounds of the receive buffer. The system refuses none of them; it only cuts.
const MIN_RECEIVE_BUFFER_LEN: u64 = 16 * 1024;
const MAX_RECEIVE_BUFFER_LEN: u64 = 1 << 30;

/// How much a tracker takes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Maximum registrations in all [default: 4000000]
    ///
    /// A registration is one peer in one share. Each takes some 200 bytes of memory.
    #[arg(
        long, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..), env = "SHOAL_MAX_REGISTRATIONS",
        hide_short_help = true
    )]
    max_registrations: Option<u32>,

    /// Maximum shares [default: 1000000]
    #[arg(
        long, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..), env = "SHOAL_MAX_SHARES",
        hide_short_help = true
    )]
    max_shares: Option<u32>,

    /// Maximum peers in one share [default: 100000]
    #[arg(
        long, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..), env = "SHOAL_MAX_PER_SHARE",
        hide_short_help = true
    )]
    max_per_share: Option<u32>,

    /// Maximum registrations from one address [default: 10000]
    ///
    /// An eighth of an IPv6 /48 counts as one address.
    #[arg(
        long, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..), env = "SHOAL_MAX_PER_ADDRESS",
        hide_short_help = true
    )]
    max_per_address: Option<u32>,

    /// Maximum peers from one address in one share [default: 2000]
    #[arg(
        long, value_name = "NUMBER", value_parser = value_parser!(u16).range(1..),
        env = "SHOAL_MAX_PER_ADDRESS_AND_SHARE", hide_short_help = true
    )]
    max_per_address_and_share: Option<u16>,

    /// Maximum answers a second to one address [default: 10000]
    ///
    /// An IPv6 address counts with its /64, and four times as many go to a /48. 'none' for no limit.
    #[arg(long, value_name = "NUMBER", env = "SHOAL_RATE", value_parser = parse_rate, hide_short_help = true)]
    rate: Option<Rate>,

    /// Maximum bytes a second in answers to one address, as in 2MB
    ///
    /// By default 200 for each answer of --rate. Beyond that, lookups are told to slow down. An IPv6 address counts as for --rate.
    #[arg(
        long, value_name = "BYTES", env = "SHOAL_BYTE_RATE", value_parser = parse_byte_rate, hide_short_help = true
    )]
    byte_rate: Option<NonZeroU32>,

    /// Receive buffer of each socket, as in 4MiB [default: 4MiB]
    ///
    /// Linux grants at most net.core.rmem_max. The tracker warns if it gets less than it was told to use.
    #[arg(
        long, value_name = "BYTES", env = "SHOAL_RECEIVE_BUFFER", value_parser = parse_buffer, hide_short_help = true
    )]
    receive_buffer: Option<usize>,
}

/// The maximum rate of an address, if there is one.
#[derive(Debug, Clone, Copy)]
struct Rate(Option<NonZeroU32>);

impl LimitArgs {
    /// Maximum numbers of registrations.
    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            peers: self.max_registrations.unwrap_or(default.peers),
            shares: self.max_shares.unwrap_or(default.shares),
            peers_per_share: self.max_per_share.unwrap_or(default.peers_per_share),
            registrations_per_ip: self.max_per_address.unwrap_or(default.registrations_per_ip),
            peers_per_site: self.max_per_address_and_share.unwrap_or(default.peers_per_site),
            crowded_from: default.crowded_from,
        }
    }

    /// Maximum answers a second, and maximum bytes of them.
    pub(crate) fn rates(&self) -> (Option<NonZeroU32>, Option<NonZeroU32>) {
        (self.rate.map_or(Some(DEFAULT_RATE), |Rate(rate)| rate), self.byte_rate)
    }

    /// Bytes of the receive buffer to request.
    pub(crate) fn receive_buffer_len(&self) -> usize {
        self.receive_buffer.unwrap_or(DEFAULT_RECEIVE_BUFFER_LEN)
    }

    /// Reports if the receive buffer is smaller than the user wants it.
    pub(crate) fn check_receive_buffer(&self, granted: usize) {
        let asked = self.receive_buffer_len();
        if granted >= asked {
            return;
        }
        let text = format!(
            "the system grants a receive buffer of {granted} bytes, not {asked}: raise net.core.rmem_max, as in \
             'sysctl -w net.core.rmem_max={asked}'"
        );
        match self.receive_buffer {
            Some(_) => tracing::warn!("{text}"),
            None => tracing::info!("{text}"),
        }
    }
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    match text {
        "none" => Ok(Rate(None)),
        _ => match text.parse() {
            Ok(rate) => Ok(Rate(Some(rate))),
            Err(_) => Err("it must be a number of answers, 1 or more, or 'none'".to_owned()),
        },
    }
}

pub(crate) fn parse_byte_rate(text: &str) -> Result<NonZeroU32, String> {
    let bytes = u32::try_from(parse_bytes(text)?).ok().and_then(NonZeroU32::new);
    bytes.ok_or_else(|| format!("it must be from 1 to {} bytes", u32::MAX))
}

fn parse_buffer(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    let in_range = (MIN_RECEIVE_BUFFER_LEN..=MAX_RECEIVE_BUFFER_LEN).contains(&bytes);
    let bytes = usize::try_from(bytes).ok().filter(|_| in_range);
    bytes.ok_or_else(|| "it must be from 16KiB to 1GiB".to_owned())
}
