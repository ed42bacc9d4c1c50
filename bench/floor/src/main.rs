//! The least that a verified transfer over TCP has to do: `sendfile` → `recv` → SHA-256 of each 512 KiB → `pwrite`.
//!
//! It has one thread for each connection, each with its part of the file, and nothing else: no tracker, no description of
//! the file, no peers that vanish, no resume. It hashes but has nothing to compare with, and syncs only with `--sync`. The
//! additional time of a program is its price for all of that. Linux only.
//!
//! `floor send FILE` listens on a free port of 127.0.0.1, prints it, and serves until it is killed. `floor fetch
//! [--sync] OUTPUT BYTES PORT...` fetches BYTES bytes, an equal part over a connection to each port.

use std::{
    env,
    fs::File,
    hint::black_box,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    ops::Range,
    os::unix::fs::FileExt,
    process::ExitCode,
    thread,
};

use sha2::{Digest, Sha256};

/// Bytes that are received, hashed and written at a time: a chunk of Shoal.
const CHUNK_LEN: u64 = 512 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["send", file] => send(file),
        ["fetch", "--sync", output, bytes, ref ports @ ..] => {
            fetch(output, bytes, ports).and_then(|file| file.sync_data())
        }
        ["fetch", output, bytes, ref ports @ ..] => fetch(output, bytes, ports).map(drop),
        _ => Err(io::Error::other("usage: floor send FILE | floor fetch [--sync] OUTPUT BYTES PORT...")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn send(path: &str) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    thread::scope(|scope| {
        loop {
            let (connection, _) = listener.accept()?;
            let file = File::open(path)?;
            scope.spawn(move || serve(&file, connection));
        }
    })
}

/// Answers the one request of a connection: the first byte wanted and the number of bytes, 8 bytes each.
fn serve(file: &File, mut connection: TcpStream) -> io::Result<()> {
    let (mut start, mut len) = ([0; 8], [0; 8]);
    connection.read_exact(&mut start)?;
    connection.read_exact(&mut len)?;
    let mut offset = u64::from_be_bytes(start);
    let end = offset + u64::from_be_bytes(len);
    while offset < end {
        if send_file(file, &connection, &mut offset, end)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn send_file(file: &File, connection: &TcpStream, offset: &mut u64, end: u64) -> io::Result<usize> {
    let left = CHUNK_LEN.min(end - *offset) as usize;
    Ok(rustix::fs::sendfile(connection, file, Some(offset), left)?)
}

#[cfg(not(target_os = "linux"))]
fn send_file(_: &File, _: &TcpStream, _: &mut u64, _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

fn fetch(output: &str, bytes: &str, ports: &[&str]) -> io::Result<File> {
    let total = parse(bytes)?;
    let file = File::create(output)?;
    file.set_len(total)?;
    let parts = parts(total, ports.len());
    thread::scope(|scope| {
        let threads: Vec<_> = ports
            .iter()
            .zip(parts)
            .map(|(port, part)| {
                let file = &file;
                scope.spawn(move || receive(file, part, parse(port)?))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread panicked"))
    })?;
    Ok(file)
}

fn receive(file: &File, part: Range<u64>, port: u16) -> io::Result<()> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let request = [part.start.to_be_bytes(), (part.end - part.start).to_be_bytes()].concat();
    connection.write_all(&request)?;
    let mut buffer = vec![0; CHUNK_LEN as usize];
    for offset in part.clone().step_by(CHUNK_LEN as usize) {
        let chunk = &mut buffer[..CHUNK_LEN.min(part.end - offset) as usize];
        connection.read_exact(chunk)?;
        black_box(Sha256::digest(&*chunk));
        file.write_all_at(chunk, offset)?;
    }
    Ok(())
}

/// Cuts `total` bytes into parts that begin at chunk boundaries.
fn parts(total: u64, count: usize) -> impl Iterator<Item = Range<u64>> {
    let (chunks, count) = (total.div_ceil(CHUNK_LEN), count as u64);
    let edge = move |number: u64| (chunks * number / count * CHUNK_LEN).min(total);
    (0..count).map(move |number| edge(number)..edge(number + 1))
}

fn parse<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::other(format!("not a number that fits: {text}")))
}
