//! Sending part of a file over a connection without copying it through this process, unless it is so small that to copy
//! it is less work.
//!
//! On Linux the kernel sends straight from its page cache (`sendfile`). That call waits for the disk if the
//! bytes are not in memory, and must not do so on the reactor; so each chunk is probed first, and one that is
//! not in memory is brought there by a thread that may wait. Elsewhere the bytes go through a buffer.

use std::{io, sync::Arc};

use bytes::BytesMut;
use store::ChunkSource;
use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
pub(crate) use linux::{read_now, send_file};
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::{read_now, send_file};

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs::File, io::IoSliceMut, os::unix::fs::FileExt};

    use rustix::{
        fs::sendfile,
        io::{Errno, ReadWriteFlags, preadv2},
    };
    use store::is_tmpfs;
    use tokio::io::Interest;

    use super::{BytesMut, ChunkSource, TcpStream, io, page_in};

    /// Distance in bytes between two probes: what the kernel commonly reads ahead at once.
    const PROBE_STEP: u64 = 128 * 1024;

    /// Sends all of `source`. An error leaves the connection with part of it sent, of no further use.
    pub(crate) async fn send_file(stream: &TcpStream, source: &ChunkSource) -> io::Result<()> {
        if !is_in_memory(source)? {
            page_in(source).await?;
        }
        let mut offset = source.offset;
        let end = offset + u64::from(source.len);
        while offset < end {
            stream.writable().await?;
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let sent = stream
                .try_io(Interest::WRITABLE, || Ok(sendfile(stream, &*source.file, Some(&mut offset), left)?));
            match sent {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Appends all of `source` to `bytes` if it is in memory; otherwise nothing, and false.
    pub(crate) fn read_now(source: &ChunkSource, bytes: &mut BytesMut) -> io::Result<bool> {
        let start = bytes.len();
        bytes.resize(start + source.len as usize, 0);
        let slices = &mut [IoSliceMut::new(&mut bytes[start..])];
        let read = match preadv2(&source.file, slices, source.offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Ok(count == source.len as usize),
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::NOTSUP) if is_tmpfs(&source.file) => {
                source.file.read_exact_at(&mut bytes[start..], source.offset).map(|()| true)
            }
            Err(Errno::NOTSUP) => Ok(false),
            Err(error) => Err(error.into()),
        };
        if !matches!(read, Ok(true)) {
            bytes.truncate(start);
        }
        read
    }

    /// Whether reading `source` will not wait for a disk, as far as a few samples tell.
    fn is_in_memory(source: &ChunkSource) -> io::Result<bool> {
        let last = source.offset + u64::from(source.len) - 1;
        let mut at = source.offset;
        loop {
            match probe(&source.file, at) {
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ok(false),
                // A file system that cannot say.
                Err(Errno::NOTSUP) => return Ok(is_tmpfs(&source.file)),
                Err(error) => return Err(error.into()),
            }
            if at == last {
                return Ok(true);
            }
            at = (at + PROBE_STEP).min(last);
        }
    }

    fn probe(file: &File, at: u64) -> rustix::io::Result<usize> {
        let mut byte = [0];
        preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT)
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::os::unix::fs::FileExt;

    use super::{Arc, BytesMut, ChunkSource, TcpStream, blocking, io};

    /// Bytes read at a time.
    const BUFFER_LEN: u32 = 128 * 1024;

    /// What cannot say whether it would wait is not asked.
    pub(crate) fn read_now(_source: &ChunkSource, _bytes: &mut BytesMut) -> io::Result<bool> {
        Ok(false)
    }

    /// Sends all of `source`. An error leaves the connection with part of it sent, of no further use.
    pub(crate) async fn send_file(stream: &TcpStream, source: &ChunkSource) -> io::Result<()> {
        let mut sent = 0;
        while sent < source.len {
            let (file, offset) = (Arc::clone(&source.file), source.offset + u64::from(sent));
            let len = (source.len - sent).min(BUFFER_LEN);
            let bytes = blocking(move || {
                let mut bytes = vec![0; len as usize];
                file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes)
            })
            .await?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                stream.writable().await?;
                match stream.try_write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            sent += len;
        }
        Ok(())
    }
}

/// Reads `source` so that it is in memory afterwards.
#[cfg(target_os = "linux")]
async fn page_in(source: &ChunkSource) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    /// Bytes read at a time: small, since what is read is thrown away.
    const BUFFER_LEN: usize = 64 * 1024;
    let source = source.clone();
    blocking(move || {
        let file: &Arc<_> = &source.file;
        let mut buffer = vec![0; BUFFER_LEN];
        let (mut at, end) = (source.offset, source.offset + u64::from(source.len));
        while at < end {
            match file.read_at(&mut buffer, at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => at += count as u64,
            }
        }
        Ok(())
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
