"""Where the processor time of a transfer goes, by kind of work: `perf` samples of the floor and of Shoal, both sides."""
import collections, re, signal, subprocess

from machine import Failure, output
from transfer_run import Run

RATE = 1999                                            # samples a second of processor time; a prime, in step with nothing
COPYING, WRITING = "copy|memcpy|rep_movs|iov_iter", "(pwrite|vfs_write)"
# The first pattern that is somewhere in the stack of a sample decides. A kernel symbol counts wherever it is in the stack.
KINDS = [
    ("SHA-256", r"sha256|sha2::|tape_sha|hash_many|compress"),
    ("preallocate", r"fallocate"),
    ("write: find or add pages", rf"(clear_page|alloc_pages|alloc_folio|shmem_(get|alloc)|charge|lru|filemap|xas_).*{WRITING}"),
    ("write: copy into the page cache", rf"({COPYING}).*{WRITING}"),
    ("write: the rest", WRITING),
    ("receive: copy out of the kernel", rf"({COPYING}).*(tcp_recvmsg|sock_recvmsg)"),
    ("send", r"sendfile|splice"),
    ("TCP and loopback, interrupts", r"softirq|net_rx|tcp_|ip_rcv|napi|loopback|skb_"),
    ("give up and tidy: sync, unmap, exit", r"do_exit|exit_mm|unmap|fdatasync|fsync|rename|truncate|evict|unlink"),
    ("scheduling, waking, waiting", r"schedule|futex|epoll|eventfd|try_to_wake|swtch|select_task|idle"),
    ("start: exec, linking, page faults", r"exec|asm_exc_page_fault|page_fault|ld-linux|_dl_"),
    ("other system calls", r"do_syscall_64|entry_SYSCALL"),
    ("other code of the program", r""),
]


def profile(options, name, source, seeders):
    """Seconds of processor time by kind, of the leecher and of the seeders."""
    with Run(options, name, source, seeders) as run:
        run.contestant.serve(run)
        files = [run.base / "seeders.perf", run.base / "leecher.perf"]
        record = [options.perf, "record", "-q", "-F", RATE, "-g", "-e", "cpu-clock", "-o"]
        watching = run.start([*record, files[0], "-p", ",".join(map(str, run.serving))], counts=False)
        run.get_ready()                                # which takes longer than perf does to attach
        output(*record, files[1], "--", *run.contestant.fetch(run))
        watching.process.send_signal(signal.SIGINT)
        watching.process.wait(20)
        return [by_kind(options, file) for file in reversed(files)]


def by_kind(options, file):
    script = subprocess.run([options.perf, "script", "-i", file, "-F", "comm,ip,sym"], capture_output=True, text=True).stdout
    seconds = collections.Counter()
    for sample in script.split("\n\n"):
        if stack := re.findall(r"^\s+[0-9a-f]+ (.*)$", sample, re.MULTILINE):
            words = " ".join(stack)
            seconds[next(kind for kind, pattern in KINDS if re.search(pattern, words))] += 1 / RATE
    if not seconds:
        raise Failure(f"perf recorded nothing in {file.name}")
    return seconds


def markdown(sides, runs, gib):
    """`sides` has a Counter for each column: the floor's leecher and seeder, then Shoal's."""
    print("\n| kind of work, CPU s/GiB | floor, leecher | Shoal, leecher | floor, seeders | Shoal, seeders |\n"
          "|---|---|---|---|---|")
    cells = lambda values: " | ".join(f"{value / gib / runs:.3f}" for value in values)
    for kind, _ in KINDS:
        if any(side[kind] for side in sides):
            print(f"| {kind} | {cells(side[kind] for side in sides)} |")
    print(f"| all | {cells(sum(side.values()) for side in sides)} |")
