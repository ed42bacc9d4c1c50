//! Sending part of a file over a connection without copying it through this process, unless it is so small that copying
//! costs less.
//!
//! On Linux the kernel sends directly from its page cache (`sendfile`). That call waits for the disk if the bytes are not in
//! memory, and must not do so on the reactor. So each chunk is [loaded](load) first: it is probed, and if it is not in
//! memory, a thread that may wait reads it in. A chunk that cannot be read is known then, before any of it is sent. Where
//! the system or the file system has no `sendfile`, the bytes go through a buffer.

use std::{io, os::unix::fs::FileExt, sync::Arc};

use bytes::BytesMut;
use proto::peer::BlockSet;
use store::ChunkSource;
use tokio::net::TcpStream;

use crate::socket::{Next, send_bytes};

#[cfg(target_os = "linux")]
pub(crate) use linux::{is_in_memory, read_now, send_file};
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::{is_in_memory, read_now, send_file};

/// Size of the buffer, where bytes go through one.
const BUFFER_LEN: usize = 128 * 1024;

/// Why a chunk, or a part of one, was not sent whole. The connection is then of no further use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendFileError {
    /// The file cannot be read.
    #[error("reading: {0}")]
    Read(#[source] io::Error),
    /// The receiver does not accept it.
    #[error(transparent)]
    Send(#[from] io::Error),
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs::File, io::IoSliceMut};

    use rustix::{
        fs::sendfile,
        io::{Errno, ReadWriteFlags, preadv2},
    };
    use store::is_tmpfs;
    use tokio::io::Interest;

    use super::{BytesMut, ChunkSource, FileExt, SendFileError, TcpStream, io, read_and_send};
    use crate::socket::writable;

    /// Distance in bytes between two probes: the kernel's usual read-ahead.
    const PROBE_STEP: u64 = 128 * 1024;

    /// Sends all of `source`, which should be in memory. `taken` receives the length of each part that the socket takes in.
    pub(crate) async fn send_file(
        stream: &TcpStream,
        source: &ChunkSource,
        taken: impl Fn(usize),
    ) -> Result<(), SendFileError> {
        let mut offset = source.offset;
        let end = offset + u64::from(source.len);
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let sent = stream
                .try_io(Interest::WRITABLE, || Ok(sendfile(stream, &*source.file, Some(&mut offset), left)?));
            match sent {
                Ok(0) => return Err(SendFileError::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => taken(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable(stream).await?,
                // The file system has no such call, or the read or the connection fails. Reading and sending shows which,
                // and is the right way on in each case.
                Err(_) => return read_and_send(stream, &rest(source, offset), taken).await,
            }
        }
        Ok(())
    }

    fn rest(source: &ChunkSource, offset: u64) -> ChunkSource {
        // Not more than the rest.
        let sent = u32::try_from(offset - source.offset).unwrap_or(source.len);
        ChunkSource { offset, len: source.len - sent, ..source.clone() }
    }

    /// Appends all of `source` to `bytes` if it is in memory. Otherwise appends nothing and returns false.
    pub(crate) fn read_now(source: &ChunkSource, bytes: &mut BytesMut) -> io::Result<bool> {
        let start = bytes.len();
        bytes.resize(start + source.len as usize, 0);
        let slices = &mut [IoSliceMut::new(&mut bytes[start..])];
        let read = match preadv2(&source.file, slices, source.offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Ok(count == source.len as usize),
            Err(Errno::NOTSUP) if is_tmpfs(&source.file) => {
                source.file.read_exact_at(&mut bytes[start..], source.offset).map(|()| true)
            }
            Err(error) if cannot_say(error) => Ok(false),
            Err(error) => Err(error.into()),
        };
        if !matches!(read, Ok(true)) {
            bytes.truncate(start);
        }
        read
    }

    /// Whether reading `source` will not wait for a disk, as a few samples show.
    pub(crate) fn is_in_memory(source: &ChunkSource) -> io::Result<bool> {
        let last = source.offset + u64::from(source.len) - 1;
        let mut at = source.offset;
        loop {
            match probe(&source.file, at) {
                // The file ends before the chunk does.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(Errno::NOTSUP) => return Ok(is_tmpfs(&source.file)),
                Err(error) if cannot_say(error) => return Ok(false),
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

    /// The bytes are on the disk only, or the kernel or file system cannot read without waiting.
    fn cannot_say(error: Errno) -> bool {
        matches!(error, Errno::AGAIN | Errno::NOTSUP | Errno::INVAL | Errno::NOSYS)
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use super::{BytesMut, ChunkSource, SendFileError, TcpStream, io, read_and_send};

    /// Nothing is read, because no call here can avoid waiting for a disk.
    pub(crate) fn read_now(_source: &ChunkSource, _bytes: &mut BytesMut) -> io::Result<bool> {
        Ok(false)
    }

    /// Always unknown.
    pub(crate) fn is_in_memory(_source: &ChunkSource) -> io::Result<bool> {
        Ok(false)
    }

    /// Sends all of `source`. `taken` receives the length of each part that the socket takes in.
    pub(crate) async fn send_file(
        stream: &TcpStream,
        source: &ChunkSource,
        taken: impl Fn(usize),
    ) -> Result<(), SendFileError> {
        read_and_send(stream, source, taken).await
    }
}

/// Reads `source`. This shows that it is readable, and brings it into memory.
pub(crate) async fn load(source: &ChunkSource) -> io::Result<()> {
    let source = source.clone();
    blocking(move || {
        let mut buffer = vec![0; BUFFER_LEN];
        let (mut at, end) = (source.offset, source.offset + u64::from(source.len));
        while at < end {
            let most = BUFFER_LEN.min(usize::try_from(end - at).unwrap_or(BUFFER_LEN));
            match source.file.read_at(&mut buffer[..most], at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => at += count as u64,
            }
        }
        Ok(())
    })
    .await
}

/// Reads these blocks of a chunk.
pub(crate) async fn read_blocks(source: &ChunkSource, blocks: BlockSet) -> io::Result<Vec<u8>> {
    let source = source.clone();
    blocking(move || {
        let mut bytes = Vec::with_capacity(blocks.len(source.len) as usize);
        for range in blocks.ranges(source.len) {
            let start = bytes.len();
            bytes.resize(start + (range.end - range.start) as usize, 0);
            source.file.read_exact_at(&mut bytes[start..], source.offset + u64::from(range.start))?;
        }
        Ok(bytes)
    })
    .await
}

/// Sends all of `source` through a buffer.
async fn read_and_send(
    stream: &TcpStream,
    source: &ChunkSource,
    taken: impl Fn(usize),
) -> Result<(), SendFileError> {
    let (mut at, end) = (source.offset, source.offset + u64::from(source.len));
    while at < end {
        let file = Arc::clone(&source.file);
        let most = BUFFER_LEN.min(usize::try_from(end - at).unwrap_or(BUFFER_LEN));
        let bytes = blocking(move || {
            let mut bytes = vec![0; most];
            file.read_exact_at(&mut bytes, at)?;
            Ok(bytes)
        });
        let bytes = bytes.await.map_err(SendFileError::Read)?;
        send_bytes(stream, &bytes, Next::Unknown).await?;
        taken(bytes.len());
        at += bytes.len() as u64;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;

    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    /// Part of this process's own memory as a file. It cannot be probed, and `sendfile` refuses it.
    fn memory(offset: u64, len: usize) -> ChunkSource {
        let file = Arc::new(File::open("/proc/self/mem").unwrap());
        ChunkSource { file, offset, len: u32::try_from(len).unwrap() }
    }

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_sendfile_refuses_is_read_and_sent() {
        let bytes: Vec<u8> = (0..500_000_u32).map(|i| (i % 251) as u8).collect();
        let source = memory(bytes.as_ptr().addr() as u64, bytes.len());
        assert!(!is_in_memory(&source).unwrap());
        load(&source).await.unwrap();
        let (near, mut far) = connection().await;
        let reading = tokio::spawn(async move {
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.map(|_| received)
        });
        send_file(&near, &source, |_| ()).await.unwrap();
        drop(near);
        assert!(reading.await.unwrap().unwrap() == bytes);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_distinguished_from_what_cannot_be_sent() {
        let (near, far) = connection().await;
        // Nothing is ever mapped at this address.
        let unreadable = memory(0, 4_096);
        assert!(load(&unreadable).await.is_err());
        assert!(matches!(send_file(&near, &unreadable, |_| ()).await, Err(SendFileError::Read(_))));
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 25).unwrap();
        let cut_short = ChunkSource { file: Arc::new(file), offset: (1 << 25) - 5, len: 9 };
        assert!(is_in_memory(&cut_short).is_err());
        drop(far);
        let readable = ChunkSource { offset: 0, len: 1 << 25, ..cut_short };
        assert!(matches!(send_file(&near, &readable, |_| ()).await, Err(SendFileError::Send(_))));
    }
}
