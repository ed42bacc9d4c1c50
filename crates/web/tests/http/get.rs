//! The least that a client of HTTP does. Other tests of programs use it too.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Longer than any answer takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status, 200 if all is well.
    pub(crate) status: u16,
    /// The lines of the head, in lower case.
    pub(crate) head: Vec<String>,
    /// What follows the head.
    pub(crate) body: String,
}

/// Asks for `path` at `http://ADDRESS/`, and reads the whole answer.
pub(crate) fn get(url: &str, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = self::request(url, &request);
    assert!(answer.head.iter().any(|line| line == "cache-control: no-store"), "{answer:?}");
    answer
}

/// Asks `http://ADDRESS/` to change what is at `path`, with more lines of the head, each with its end.
pub(crate) fn post(url: &str, path: &str, lines: &str, body: &str) -> Answer {
    let length = body.len();
    request(
        url,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{lines}Connection: \
             close\r\n\r\n{body}"
        ),
    )
}

/// Sends a request as it is, and reads the whole answer.
pub(crate) fn request(url: &str, request: &str) -> Answer {
    let (head, mut body) = begin(url, request);
    let mut text = String::new();
    body.read_to_string(&mut text).unwrap();
    let status = head[0].split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: text }
}

/// Sends a request, and reads the head of the answer.
pub(crate) fn begin(url: &str, request: &str) -> (Vec<String>, BufReader<TcpStream>) {
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/')).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => return (head, reader),
            line => head.push(line.to_ascii_lowercase()),
        }
    }
}
