"""The machines of bench/swarm: network namespaces on one bridge, and the programs that run in them. Needs root."""
import os, pathlib, signal, subprocess

from machine import output
from program import Program


class Network:
    """The namespaces, their links and their limits. `remove_namespaces` ends it, and all that runs in it."""

    def __init__(self, prefix, ups_mbit, down_mbit, queue_ms):
        """The uplink of each node, of which that of node 0 has no limit. A full queue holds a packet for `queue_ms`."""
        nodes = len(ups_mbit)
        self.prefix, self.nodes = prefix, nodes
        limit = f"root tbf rate {{}}mbit burst 128kb latency {queue_ms}ms\n"
        bridge = self.namespace("br")
        output("ip", "-batch", "-", stdin="".join(f"netns add {self.namespace(n)}\n" for n in ["br", *range(nodes)]))
        output("ip", "-n", bridge, "-batch", "-", stdin="link add br0 type bridge\nlink set br0 up\n" + "".join(
            f"link add p{n} type veth peer name eth0 netns {self.namespace(n)}\nlink set p{n} master br0 up\n"
            for n in range(nodes)))
        for n in range(nodes):
            output("ip", "-n", self.namespace(n), "-batch", "-",
                   stdin=f"link set lo up\naddr add {self.address(n)}/24 dev eth0\nlink set eth0 up\n")
            if n > 0:                                  # the tracker's link stays free: it is not what is measured
                output("tc", "-n", self.namespace(n), "qdisc", "add", "dev", "eth0", *limit.format(ups_mbit[n]).split())
        output("tc", "-n", bridge, "-batch", "-",
               stdin="".join(f"qdisc add dev p{n} {limit.format(down_mbit)}" for n in range(1, nodes)))
        # A process in the bridge's namespace: through it /proc shows the counters of all ports without a fork.
        self.holder = subprocess.Popen(["ip", "netns", "exec", bridge, "sleep", "infinity"], start_new_session=True)

    def namespace(self, node):
        return f"{self.prefix}-{node}"

    @staticmethod
    def address(node):
        return f"10.78.0.{10 + node}"

    def traffic(self):
        """Bytes that each node sent so far, and bytes that each received, headers included."""
        lines = pathlib.Path(f"/proc/{self.holder.pid}/net/dev").read_text().splitlines()
        ports = {name.strip(): counts.split() for name, counts in (line.split(":") for line in lines if ":" in line)}
        return tuple([int(ports[f"p{n}"][field]) for n in range(self.nodes)] for field in (0, 8))

    def listens(self, node, port):
        return bool(output("ip", "netns", "exec", self.namespace(node), "ss", "-Hltn", f"sport = :{port}").strip())


class Process(Program):
    """A program in a node."""

    def __init__(self, network, node, command, directory):
        # Not `ip netns exec`: it mounts /sys anew, so that sixteen programs start over a quarter of a second.
        enter = ["nsenter", f"--net=/run/netns/{network.namespace(node)}"]
        super().__init__([*enter, *command], directory, str(command[0]))


def remove_namespaces(prefix):
    """Kill what runs in the namespaces of this prefix (nothing of others does), and delete them."""
    for name in (line.split()[0] for line in output("ip", "netns", "list").splitlines() if line.startswith(prefix)):
        for pid in output("ip", "netns", "pids", name).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        output("ip", "netns", "del", name)
