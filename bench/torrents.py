"""What the BitTorrent programs share: the torrent, opentracker, and flags."""
import hashlib, pathlib

from machine import output

PEER = pathlib.Path(__file__).resolve().parent / "libtorrent_peer.py"
ARIA2 = ["aria2c", "--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--disable-ipv6",
         "--console-log-level=warn", "--summary-interval=0", "--bt-max-peers=0", "--follow-torrent=mem"]
ARIA2_SEEDER = ["--seed-ratio=0.0", "--bt-seed-unverified=true", "--allow-overwrite"]
RQBIT_CRATE = ["rqbit@9.1.0", "--no-default-features", "--features", "rust-tls"]
RQBIT_SEEDS = "Initial check results"                  # what a seeder prints when it has hashed its file, with `log="info"`


def rqbit(program, torrent, address, port, directory, *flags, trackers=("--disable-trackers",), log="error"):
    """The command of an rqbit that listens there and seeds or fetches in that directory, without a DHT and the like."""
    return [program, "-v", log, "--disable-dht", "--disable-lsd", "--disable-upnp-port-forward", "--ipv4-only", *trackers,
            "--listen-ip", address, "--listen-port", port, "--announce-port", port,
            "download", torrent, "-o", directory, "--disable-http-api", *flags]


def make_torrent(source, torrent, address, port):
    """A v1 torrent with pieces of 512 KiB, announced to the tracker at that address."""
    output("mktorrent", "-l", 19, "-a", f"http://{address}:{port}/announce", "-o", torrent, source)


def opentracker(torrent, directory, address, port):
    """The command of a tracker for that torrent: Debian's opentracker serves only what is on its white list."""
    metainfo = torrent.read_bytes()                    # `info` is its last key: the dictionary ends one byte before the end
    infohash = hashlib.sha1(metainfo[metainfo.index(b"4:info") + 6:-1]).hexdigest()
    (directory / "white").write_text(infohash + "\n")
    directory.chmod(0o777)                             # it gives up root and reads its white list afterwards
    return ["opentracker", "-i", address, "-p", port, "-P", port, "-d", directory, "-w", "white"]


def aria2_hook(directory, words):
    """A flag that makes aria2 say these words as soon as a download is complete."""
    hook = directory / "complete.sh"
    hook.write_text(f"#!/bin/sh\necho '{words}'\n")
    hook.chmod(0o755)
    return f"--on-bt-download-complete={hook}"
