"""A link between two network namespaces with a delay, a rate and losses: `far_link.c`."""
import json

from machine import CACHE, REPO, output
from program import Program
from swarm_nodes import remove_namespaces

SOURCES, FETCHER = "10.77.0.1", "10.77.0.2"


def build_link():
    CACHE.mkdir(parents=True, exist_ok=True)
    output("gcc", "-O2", "-o", CACHE / "far_link", REPO / "bench" / "far_link.c")


class Link:
    """Two namespaces, one for the sources and one for what fetches, and the link between them."""

    def __init__(self, prefix, round_trip_ms, mbit, loss, queue_ms):
        self.prefix, self.near, self.far = prefix, f"{prefix}-sources", f"{prefix}-fetch"
        remove_namespaces(prefix)
        for name in (self.near, self.far):
            output("ip", "netns", "add", name)
            output("ip", "-n", name, "link", "set", "lo", "up")
        self.program = Program([CACHE / "far_link", self.near, self.far, round_trip_ms / 2, mbit, loss, queue_ms], "/")
        self.program.wait_for("ready")
        for name, own, other in ((self.near, SOURCES, FETCHER), (self.far, FETCHER, SOURCES)):
            output("ip", "-n", name, "addr", "add", own, "peer", other, "dev", "far0")
            output("ip", "-n", name, "link", "set", "far0", "mtu", "1500", "up")
            # A socket may hold what such a link has on its way. Most systems allow 6 MiB, which is as low for every contestant.
            output("ip", "netns", "exec", name, "sysctl", "-q", "-w", "net.ipv4.tcp_rmem=4096 131072 268435456",
                   "net.ipv4.tcp_wmem=4096 16384 268435456")

    def received(self):
        """Bytes that have come to the side that fetches, headers included."""
        return json.loads(output("ip", "-j", "-s", "-n", self.far, "link", "show", "far0"))[0]["stats64"]["rx"]["bytes"]

    def close(self):
        self.program.kill()
        remove_namespaces(self.prefix)


def inside(namespace, *command):
    return ["nsenter", f"--net=/run/netns/{namespace}", *map(str, command)]
