//! What the system knows of the way to a peer (`TCP_INFO`, Linux 4.6).
//!
//! This is unsafe code, because no crate that is kept well reads `TCP_INFO`. A round trip that this process measures would not do: it contains
//! how long both processes wait for a processor, and how full the links were at that moment.

use std::time::Duration;

use tokio::net::TcpStream;

/// The way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    /// The shortest round trip that was seen on the connection.
    pub(crate) round_trip: Duration,
    /// Maximum number of bytes in a segment (MSS).
    pub(crate) segment_len: u32,
}

impl Path {
    /// The way of a connection; `None` if the system does not tell.
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "no crate that is kept well reads TCP_INFO")]
    pub(crate) fn of(stream: &TcpStream) -> Option<Path> {
        use std::{
            mem::{MaybeUninit, offset_of},
            os::fd::AsRawFd,
        };

        const END: usize = offset_of!(libc::tcp_info, tcpi_min_rtt) + size_of::<u32>();
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
        // SAFETY: `stream` keeps the descriptor open during the call. The system writes at most `len` bytes to `info`, which has as many.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        // SAFETY: all fields are integers, for which zeros and whatever the system has written are valid.
        let info = unsafe { info.assume_init() };
        // An older system writes less. Before anything was acknowledged it writes the largest number.
        let is_known = result == 0 && len as usize >= END && info.tcpi_min_rtt < u32::MAX;
        let round_trip = Duration::from_micros(info.tcpi_min_rtt.into());
        is_known.then_some(Path { round_trip, segment_len: info.tcpi_snd_mss })
    }

    /// Unknown.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_stream: &TcpStream) -> Option<Path> {
        None
    }
}
