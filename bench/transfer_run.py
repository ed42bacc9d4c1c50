"""One measured transfer of bench/transfer: a contestant, a source, a number of seeders, a fresh directory."""
import filecmp, os, shutil, statistics, tempfile, time

from machine import Failure, cpu_seconds, interruptible, quiet_moment
from program import Program
from transfer_meter import family_cpu, measure, sent_bytes
from transfer_peers import CONTESTANTS


class Run:
    """`kept` is a directory that lasts as long as the source: hash caches and torrents are in it."""

    def __init__(self, options, name, source, seeders=1):
        self.options, self.name, self.source, self.seeders = options, name, source, seeders
        self.kept, self.base = source.parent, source.parent / "run"
        self.contestant, self.programs, self.serving = CONTESTANTS[name](options), [], []

    def __enter__(self):
        (self.base / "out").mkdir(parents=True)
        return self

    def __exit__(self, *_):
        interruptible(False)                           # a second Ctrl-C must not end the cleaning up
        for program in reversed(self.programs):
            program.kill()
        shutil.rmtree(self.base, ignore_errors=True)
        interruptible(True)

    def start(self, command, counts=True, directory=None):
        program = Program(command, directory or self.base)
        self.programs.append(program)
        if counts:
            self.serving.append(program.process.pid)
        return program

    def seeders_cpu(self):
        return family_cpu(self.serving)

    def get_ready(self, copies=1):
        """An idle machine, no unwritten pages, and memory that is really there for `copies` copies of the source.

        A virtual machine may have given its free pages back to its host, and getting one back costs more than filling it.
        Returns how busy others are.
        """
        if self.options.disk in self.base.parents:
            os.sync()
        busy = quiet_moment(self.options.quiet_wait)
        if busy >= 0.1:
            print(f"note: the machine is not idle: {busy:.0%} of its processors are in use", flush=True)
        block = bytes(1 << 20)
        with tempfile.TemporaryFile(dir=self.options.dir) as pages:
            for _ in range(size_of(self.source) * copies * 5 // 4 >> 20):
                pages.write(block)
        return busy

    def transfer(self):
        """One leecher from all seeders; the columns of its row."""
        self.contestant.serve(self)
        busy = self.get_ready()
        row = measure(self.contestant.fetch(self), self.base / "out", self.serving, self.options.timeout)
        return dict(row, busy_before=f"{busy:.0%}", ok=verdict(self.source, [self.contestant.output(self)]))

    def crowd(self, count):
        """Several leechers from the seeders and from each other; the columns of its row."""
        contestant = self.contestant
        contestant.serve_crowd(self)
        directories = [self.base / f"member{number}" for number in range(count)]
        for directory in directories:
            directory.mkdir()
        busy = self.get_ready(count)
        machine, began, served = cpu_seconds(), time.monotonic(), self.seeders_cpu()
        members = [self.start(contestant.member(self, directory), counts=False, directory=directory)
                   for directory in directories]
        for member in members:
            member.done_mark = contestant.done
        if contestant.go:
            for member in members:
                member.wait_for(contestant.go)
            machine, began, served = cpu_seconds(), time.monotonic(), self.seeders_cpu()
            for member in members:
                member.process.stdin.write("\n")
                member.process.stdin.flush()
        sent = {}
        while not all(member.done_at for member in members) and time.monotonic() < began + self.options.timeout:
            if gone := [member for member in members if member.process.poll() is not None]:
                raise Failure(f"a leecher ended too soon: {gone[0].last_words()}")
            sent_bytes(self.serving, sent)
            time.sleep(0.1)
        machine, served = cpu_seconds() - machine, self.seeders_cpu() - served
        copies = sum(sent_bytes(self.serving, sent).values()) / size_of(self.source)
        times = sorted(member.done_at - began for member in members if member.done_at)
        if len(times) < count:
            raise Failure(f"only {len(times)} of {count} had the file after {self.options.timeout} s")
        arrived = [directory / self.source.name for directory in directories]
        return dict(wall_s=f"{times[-1]:.3f}", median_s=f"{statistics.median(times):.3f}", seeder_cpu_s=f"{served:.3f}",
                    machine_cpu_s=f"{machine:.2f}", origin_copies=f"{copies:.3f}", busy_before=f"{busy:.0%}",
                    ok=verdict(self.source, arrived))


def size_of(source):
    """Bytes in a file, or in the files of a directory."""
    if source.is_dir():
        return sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    return source.stat().st_size


def verdict(source, arrived):
    return "ok" if all(same(source, path) for path in arrived) else "DIFFERENT"


def same(source, arrived):
    """Whether what arrived is the source, byte for byte, and nothing else."""
    if not source.is_dir():
        return arrived.is_file() and filecmp.cmp(source, arrived, shallow=False)
    names = lambda root: {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    expected = names(source)
    return names(arrived) == expected and all(
        filecmp.cmp(source / name, arrived / name, shallow=False) for name in expected)
