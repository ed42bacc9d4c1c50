//! A Redis server, or a cluster of three, for a test: on free ports, in an empty directory, gone with the test.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tries to find a free port: another program may take it before the server does.
const TRIES: usize = 5;

pub(crate) struct Redis {
    server: PathBuf,
    child: Child,
    pub(crate) port: u16,
    dir: TempDir,
    options: Vec<String>,
}

/// The server's program, if there is one. If not, says so, and the test passes.
pub(crate) fn server() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let names = ["redis-server", "valkey-server"];
    let found = env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|program| program.is_file());
    if found.is_none() {
        eprintln!(
            "\n== SKIPPED: there is no redis-server (apt install redis-server), so no fleet of trackers was tried\n"
        );
    }
    found
}

impl Redis {
    pub(crate) fn start(server: PathBuf, options: &[&str]) -> Redis {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        for _ in 0..TRIES {
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let child = spawn(&server, &dir, port, &options);
            let mut redis = Redis { server: server.clone(), child, port, dir, options: options.clone() };
            if redis.wait_until_ready() {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The answer to a command, as lines: errors begin with '-', and of a string its length comes first.
    pub(crate) fn command(&self, command: &str) -> String {
        self.try_command(command).unwrap_or_else(|| panic!("{command}: the server does not answer"))
    }

    fn try_command(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "{command}\r\n").ok()?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(len) = line.strip_prefix('$').and_then(|len| len.trim().parse::<usize>().ok()) {
            let mut text = vec![0; len];
            std::io::Read::read_exact(&mut reader, &mut text).ok()?;
            return Some(String::from_utf8_lossy(&text).into_owned());
        }
        Some(line.trim().to_owned()).filter(|line| !line.is_empty())
    }

    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.try_command("PING").is_some_and(|pong| pong == "+PONG" || pong.starts_with("-NOAUTH")) {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Ends it at once. What it had is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again at the same port, empty.
    pub(crate) fn restart(&mut self) {
        for _ in 0..TRIES {
            self.child = spawn(&self.server, &self.dir, self.port, &self.options);
            if self.wait_until_ready() {
                return;
            }
        }
        panic!("redis-server does not start again");
    }

    /// Lets it answer nobody until [`Redis::go_on`].
    pub(crate) fn suspend(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    pub(crate) fn go_on(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }
}

/// A port that leads to a server, and later to another one, like a name in the DNS.
pub(crate) struct Forwarder {
    port: u16,
    leads_to: Arc<AtomicU16>,
    _task: JoinSet<()>,
}

impl Forwarder {
    pub(crate) async fn start(to: u16) -> Forwarder {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let leads_to = Arc::new(AtomicU16::new(to));
        let target = leads_to.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let to = target.load(Ordering::Relaxed);
                connections.spawn(async move {
                    if let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", to)).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Forwarder { port, leads_to, _task: task }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn lead_to(&self, port: u16) {
        self.leads_to.store(port, Ordering::Relaxed);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(server: &Path, dir: &TempDir, port: u16, options: &[String]) -> Child {
    fs::create_dir_all(dir.path()).unwrap();
    Command::new(server)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(options)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Three servers that are a cluster.
pub(crate) fn cluster(server: &Path) -> Vec<Redis> {
    let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let nodes: Vec<Redis> = (0..3)
        .map(|_| {
            // The bus of a cluster has a port of its own.
            let bus = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string();
            Redis::start(server.to_path_buf(), &[&options[..], &["--cluster-port", &bus]].concat())
        })
        .collect();
    for (node, (first, last)) in nodes.iter().zip([(0, 5_460), (5_461, 10_922), (10_923, 16_383)]) {
        assert_eq!(node.command(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")), "+OK");
        let bus = &node.options[5];
        for other in &nodes {
            assert_eq!(other.command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port)), "+OK");
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let is_ready = |node: &Redis| {
        let info = node.command("CLUSTER INFO");
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
    };
    while !nodes.iter().all(is_ready) {
        assert!(Instant::now() < deadline, "the cluster does not come together");
        std::thread::yield_now();
    }
    nodes
}
