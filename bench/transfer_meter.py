"""What a transfer costs: time, processor time and memory of a leecher and of its seeders."""
import os, pathlib, re, signal, subprocess, threading, time

from machine import Failure, cpu_seconds

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid):
    """A process and all that it started, as far as they run."""
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in family(int(child)))]


def used_cpu(pid):
    """Seconds of processors that all its threads used, and that its children used which have ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        own = time.clock_gettime(~pid << 3 | 2)        # its clock, as clock_getcpuclockid(3) has it: /proc rounds to 10 ms
        return own + (int(fields[13]) + int(fields[14])) / TICKS
    except OSError:
        return 0


def family_cpu(pids):
    return sum(used_cpu(member) for pid in pids for member in family(pid))


def memory_mib(pid):
    """The most it had resident, and what it has now that is its own (not a file's)."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    found = [re.search(name + r":\s+(\d+)", status) for name in ("VmHWM", "RssAnon")]
    return tuple(int(match[1]) / 1024 if match else 0 for match in found)


def stolen_seconds():
    """Seconds that a hypervisor gave to others."""
    return int(open("/proc/stat").readline().split()[8]) / TICKS


class Peak:
    """The most memory that a process and its children have, looked at often while they run."""

    def __init__(self, pid):
        self.pid, self.resident, self.own, self.over = pid, 0, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        began = time.monotonic()
        while True:
            resident, own = map(sum, zip((0, 0), *map(memory_mib, family(self.pid))))
            self.resident, self.own = max(self.resident, resident), max(self.own, own)
            if self.over.wait(0.03 if time.monotonic() < began + 1 else 0.2):
                return

    def stop(self):
        self.over.set()
        self.thread.join()


def measure(command, directory, seeders, timeout_s):
    """Runs a leecher to its end; what it and the seeders (their pids) took, as columns of a row."""
    served, machine, stolen = family_cpu(seeders), cpu_seconds(), stolen_seconds()
    with open(directory / "leecher.log", "w+") as log:
        began = time.monotonic()
        leecher = subprocess.Popen([str(part) for part in command], cwd=directory, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True,
                                   env={k: v for k, v in os.environ.items() if not k.startswith("SHOAL_")})
        peaks = [Peak(pid) for pid in [leecher.pid, *seeders]]
        late = threading.Timer(timeout_s, os.killpg, (leecher.pid, signal.SIGKILL))
        late.start()
        try:
            _, status, usage = os.wait4(leecher.pid, 0)
            wall = time.monotonic() - began
            leecher.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:                          # Ctrl-C: nothing that was started goes on
            os.killpg(leecher.pid, signal.SIGKILL)
            leecher.wait()
            raise
        finally:
            late.cancel()
            for peak in peaks:
                peak.stop()
        served, machine = family_cpu(seeders) - served, cpu_seconds() - machine
        if leecher.returncode:
            log.seek(0)
            raise Failure(f"the leecher ended with {leecher.returncode} after {wall:.1f} s: {log.read()[-300:].strip()}")
    fetched = usage.ru_utime + usage.ru_stime
    largest = max(peaks[1:], key=lambda peak: peak.resident)
    return dict(wall_s=f"{wall:.3f}", leecher_cpu_s=f"{fetched:.3f}", seeder_cpu_s=f"{served:.3f}",
                leecher_mib=f"{peaks[0].resident:.0f}", leecher_own_mib=f"{peaks[0].own:.0f}",
                seeder_mib=f"{largest.resident:.0f}", seeder_own_mib=f"{largest.own:.0f}",
                others_cpu_s=f"{max(machine - fetched - served, 0):.2f}", stolen_s=f"{stolen_seconds() - stolen:.2f}")


def sent_bytes(pids, so_far):
    """Bytes that each TCP connection of these processes has sent, beside those of connections that are over."""
    listing = subprocess.run(["ss", "-HtinpO"], capture_output=True, text=True).stdout
    for line in listing.splitlines():
        owner, sent = re.search(r"pid=(\d+)", line), re.search(r"bytes_sent:(\d+)", line)
        if owner and sent and int(owner[1]) in pids:
            so_far[tuple(line.split()[3:5])] = int(sent[1])
    return so_far
