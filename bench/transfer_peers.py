"""The contestants of bench/transfer: how each serves a source, fetches it, and joins a crowd of leechers.

A contestant gets a `Run`: the source, the number of seeders, an empty directory, and `start`, which starts a program whose
processor time counts as the seeders'. `serve` returns when the seeders can be asked; `fetch` is the command of a leecher
that ends when all is there and, where the program does that, verified. `member` is that of one that goes on serving others
and says `done` when it has all.
"""
import os, shlex, shutil, socket, time

from machine import Failure, has_libtorrent, until
from torrents import ARIA2, ARIA2_SEEDER, PEER, RQBIT_SEEDS, aria2_hook, make_torrent, opentracker, rqbit

LOCALHOST = "127.0.0.1"


def free_port():
    with socket.socket() as found:
        found.bind((LOCALHOST, 0))
        return found.getsockname()[1]


def accepts(host, port):
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False


def wait_for_port(program, host, port):
    until(lambda: accepts(host, port) or program.process.poll() is not None, 20)
    if not accepts(host, port):
        raise Failure(f"{program.name} does not listen: {program.last_words()}")


def then(*commands):
    """One command that runs several, each if the one before succeeded."""
    return ["sh", "-c", " && ".join(shlex.join(map(str, command)) for command in commands)]


class Contestant:
    """`needs` names programs, `title` is its name in the tables, `go` the output of a member before it waits for a line."""
    needs, many_sources, go = [], True, None

    def __init__(self, options):
        self.options = options

    def tool(self, name):
        found = find(self.options, name)
        if not found:
            raise Failure(f"there is no {name}")
        return found

    def serve_crowd(self, run):
        self.serve(run)

    def output(self, run):
        return run.base / "out" / run.source.name


class Floor(Contestant):
    title, extra = "floor: sendfile → recv → SHA-256 → pwrite", []

    def serve(self, run):
        programs = [run.start([self.options.bin / "floor", "send", run.source]) for _ in range(run.seeders)]
        self.ports = [program.wait_for_match(r"^(\d+)$")[1] for program in programs]

    def fetch(self, run):
        return [self.options.bin / "floor", "fetch", *self.extra, self.output(run), run.source.stat().st_size, *self.ports]


class FloorSynced(Floor):
    title, extra = "the floor, synced to disk at the end", ["--sync"]


class Shoal(Contestant):
    title, done = "**Shoal** (SHA-256 of each chunk)", '"event":"finished"'

    def serve(self, run):
        binary, quiet = self.options.bin, "--no-log-file"
        tracker = run.start([binary / "tracker", "--bind", LOCALHOST, "-p", 0, quiet], counts=False)
        self.tracker = tracker.wait_for_match(r"listening on (\S+)")[1]
        for _ in range(run.seeders):
            seeder = run.start([binary / "seeder", "-f", run.source, "-p", 0, "--bind", LOCALHOST, "--tracker", self.tracker,
                                "--cache-dir", run.kept / "hashes", quiet])
            seeder.wait_for("Registered", 60)

    def leecher(self, *flags):
        return [self.options.bin / "leecher", "--tracker", self.tracker, "--no-log-file", *flags]

    def fetch(self, run):
        return self.leecher("-q", "-o", self.output(run), run.source.name)

    def member(self, run, directory):
        return self.leecher("--seed", "--json", "--bind", LOCALHOST, "-o", directory / run.source.name, run.source.name)


class Nginx(Contestant):
    """What fetches from web servers."""
    needs = ["nginx"]

    def serve(self, run):
        self.urls = []
        for number in range(run.seeders if self.many_sources else 1):
            home, port = run.base / f"nginx{number}", free_port()
            home.mkdir()
            temporary = " ".join(f"{kind}_temp_path {home}/{kind};" for kind in
                                 ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            (home / "nginx.conf").write_text(
                f"pid {home}/pid; error_log {home}/error.log; worker_processes 1; daemon off;\n"
                + ("user root;\n" if os.geteuid() == 0 else "") +
                "events { worker_connections 512; }\n"
                f"http {{ access_log off; sendfile on; sendfile_max_chunk 2m; tcp_nopush on; {temporary}\n"
                f"  server {{ listen {LOCALHOST}:{port}; root {run.source.parent}; }} }}\n")
            server = run.start([self.tool("nginx"), "-p", home, "-e", home / "error.log", "-c", home / "nginx.conf"])
            wait_for_port(server, LOCALHOST, port)
            self.urls.append(f"http://{LOCALHOST}:{port}/{run.source.name}")


class Curl(Nginx):
    title, needs, many_sources = "curl from nginx, unverified", ["curl", "nginx"], False

    def fetch(self, run):
        return [self.tool("curl"), "-sS", "-o", self.output(run), self.urls[0]]


class CurlThenSum(Curl):
    title, needs = "curl from nginx, then `openssl dgst -sha256`", ["curl", "nginx", "openssl"]

    def fetch(self, run):
        return then(super().fetch(run), [self.tool("openssl"), "dgst", "-sha256", self.output(run)])


class Aria2Http(Nginx):
    title, needs = "aria2 from nginx mirrors, then `sha256sum`", ["aria2c", "nginx"]

    def fetch(self, run):
        download = [self.tool("aria2c"), "--no-conf", "--console-log-level=warn", "--summary-interval=0", "-s", 8, "-x", 8,
                    "-k", "1M", "--file-allocation=none", "-d", self.output(run).parent, "-o", run.source.name, *self.urls]
        return then(download, [self.tool("sha256sum"), self.output(run)])


class Torrent(Contestant):
    """What the BitTorrent programs share."""

    def torrent(self, run, port=1):
        """The torrent of the source, made once; of one with its own tracker, each time."""
        path = run.kept / f"{run.source.name}.torrent" if port == 1 else run.base / "tracked.torrent"
        if not path.exists():
            make_torrent(run.source, path, LOCALHOST, port)
        return path

    def tracked(self, run):
        """Starts a tracker; the torrent that names it."""
        port = free_port()
        torrent = self.torrent(run, port)
        wait_for_port(run.start(opentracker(torrent, run.base, LOCALHOST, port), counts=False), LOCALHOST, port)
        return torrent

    def seeded(self, run, number):
        """A directory of its own for a seeder, with the source in it."""
        home = run.base / f"seeder{number}"
        home.mkdir()
        if run.source.is_dir():
            shutil.copytree(run.source, home / run.source.name, copy_function=os.link)
        else:
            os.link(run.source, home / run.source.name)
        return home


class Libtorrent(Torrent):
    title, needs, go, done = "libtorrent 2.1, tuned (SHA-1 pieces)", ["libtorrent", "mktorrent"], "READY", "DONE"

    def command(self, role, directory, address, *peers):
        return [self.options.libtorrent_python, "-u", PEER, role, "tuned", self.made, directory, address, *peers]

    def serve(self, run):
        self.serve_torrent(run, self.torrent(run))

    def serve_crowd(self, run):
        self.serve_torrent(run, self.tracked(run))

    def serve_torrent(self, run, torrent):
        self.made, self.peers = torrent, [f"{LOCALHOST}:{free_port()}" for _ in range(run.seeders)]
        seeders = [run.start(self.command("seed", self.seeded(run, number), peer)) for number, peer in enumerate(self.peers)]
        for seeder in seeders:
            seeder.wait_for("SEEDING")

    def fetch(self, run):
        return self.command("fetch", self.output(run).parent, f"{LOCALHOST}:{free_port()}", *self.peers)

    def member(self, _run, directory):
        return self.command("leech", directory, f"{LOCALHOST}:{free_port()}")


class Rqbit(Torrent):
    title, needs, done = "rqbit 9.1 (SHA-1 pieces)", ["rqbit", "mktorrent"], "torrent finished downloading"

    def command(self, port, directory, *flags, log="error"):
        return rqbit(self.tool("rqbit"), self.made, LOCALHOST, port, directory, *flags, trackers=self.trackers, log=log)

    def serve(self, run):
        self.made, self.trackers = self.torrent(run), ["--disable-trackers"]
        self.start_seeders(run)

    def serve_crowd(self, run):
        self.made, self.trackers = self.tracked(run), ["-i", "2s"]      # asked again every 2 s
        self.start_seeders(run)

    def start_seeders(self, run):
        self.ports = [free_port() for _ in range(run.seeders)]
        for number, port in enumerate(self.ports):
            seeder = run.start(self.command(port, self.seeded(run, number), "--overwrite", log="info"))
            seeder.wait_for(RQBIT_SEEDS, 60)

    def fetch(self, run):
        peers = ",".join(f"{LOCALHOST}:{port}" for port in self.ports)
        return self.command(free_port(), self.output(run).parent, "--initial-peers", peers, "-e")

    def member(self, _run, directory):
        return self.command(free_port(), directory, log="info")


class Aria2(Torrent):
    title, needs, done = "aria2, BitTorrent (SHA-1 pieces)", ["aria2c", "opentracker", "mktorrent"], "shoal-bench: complete"

    def command(self, *flags):
        return [self.tool("aria2c"), *ARIA2[1:], f"--interface={LOCALHOST}", f"--listen-port={free_port()}", *flags]

    def serve(self, run):
        self.made = self.tracked(run)
        for number in range(run.seeders):
            run.start(self.command(*ARIA2_SEEDER, "-d", self.seeded(run, number), self.made))
        time.sleep(2)                                  # let their announces reach the tracker

    def fetch(self, run):
        return self.command("--seed-time=0", "--file-allocation=none", "--bt-tracker-connect-timeout=5", "-d",
                            self.output(run).parent, self.made)

    def member(self, run, directory):
        return self.command("--seed-ratio=0.0", "--file-allocation=none", aria2_hook(run.base, self.done), "-d", directory,
                            self.made)


class Sendme(Contestant):
    title, needs, many_sources = "sendme 0.37 (QUIC, TLS, BLAKE3)", ["sendme"], False

    def serve(self, run):
        home = run.base / "sendme"
        home.mkdir()
        sender = run.start([self.tool("sendme"), "send", "--relay", "disabled", "--ticket-type", "addresses", "--no-progress",
                            run.source], directory=home)
        self.ticket = sender.wait_for_match(r"sendme receive (\S+)", 60)[1]

    def fetch(self, _run):
        return [self.tool("sendme"), "receive", "--relay", "disabled", "--no-progress", self.ticket]


class Rsync(Contestant):
    title, needs, many_sources = "rsync from its daemon", ["rsync"], False

    def serve(self, run):
        self.port, settings = free_port(), run.base / "rsyncd.conf"
        owner = "uid = root\ngid = root\n" if os.geteuid() == 0 else ""
        settings.write_text(f"use chroot = no\nport = {self.port}\naddress = {LOCALHOST}\n{owner}"
                            f"log file = {run.base}/rsync.log\n[d]\npath = {run.source.parent}\nread only = yes\n")
        daemon = run.start([self.tool("rsync"), "--daemon", "--no-detach", f"--config={settings}"])
        wait_for_port(daemon, LOCALHOST, self.port)

    def fetch(self, run):
        return [self.tool("rsync"), "-rW", "--inplace", f"rsync://{LOCALHOST}:{self.port}/d/{run.source.name}",
                f"{self.output(run).parent}/"]


CONTESTANTS = {"floor": Floor, "floor-synced": FloorSynced, "shoal": Shoal, "curl": Curl, "curl-sum": CurlThenSum,
               "aria2-http": Aria2Http, "libtorrent": Libtorrent, "rqbit": Rqbit, "aria2": Aria2, "sendme": Sendme,
               "rsync": Rsync}


def find(options, name):
    """A program: in --tools, on the PATH, or where system programs are."""
    return shutil.which(name, path=os.pathsep.join([str(options.tools), os.environ.get("PATH", ""), "/usr/sbin"]))


def lacking(options, name):
    """The programs that a contestant needs and that are not here."""
    here = lambda tool: has_libtorrent(options.libtorrent_python) if tool == "libtorrent" else find(options, tool)
    return [tool for tool in CONTESTANTS[name].needs if not here(tool)]
