"""What the scripts here need of the machine: tools and Shoal's programs, an idle moment, files, and a clean end."""
import os, pathlib, random, re, shutil, signal, subprocess, sys, time

REPO = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "shoal-bench"
ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Failure(Exception):
    """What went wrong, in words for the user."""


def output(*command, stdin=None):
    """What a command prints; a Failure with its complaint if it fails."""
    done = subprocess.run([str(c) for c in command], input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def until(condition, seconds):
    """Wait for a condition, so long at most."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


def interruptible(yes):
    """Whether signals end the program (all as Ctrl-C does, so that every `finally` cleans up) or are ignored."""
    for number in ENDING:
        signal.signal(number, signal.default_int_handler if yes else signal.SIG_IGN)


def cpu_seconds():
    """Seconds that all processors together have worked since boot."""
    user, nice, system, _idle, _wait, irq, softirq = map(int, open("/proc/stat").readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def quiet_moment(wait_s):
    """Wait until others use less than a tenth of the processors, not for ever; returns the share in use."""
    end = time.monotonic() + wait_s
    while True:
        before = cpu_seconds()
        time.sleep(1)
        busy = (cpu_seconds() - before) / os.cpu_count()
        if busy < 0.1 or time.monotonic() > end:
            return busy


def write_source(path, mib):
    """A file of pseudo-random bytes, always the same, in which no two chunks are equal."""
    numbers = random.Random(3)
    block = b"".join(numbers.randbytes(1 << 20) for _ in range(min(mib, 64)))
    with open(path, "wb") as file:
        for number in range(0, mib, 64):               # each time another rotation: much faster than new bytes
            cut = number * 4099
            file.write((block[cut:] + block[:cut])[:(mib - number) << 20])


def install_packages(packages):
    """Debian packages."""
    subprocess.run([*([] if os.geteuid() == 0 else ["sudo"]), "apt-get", "install", "-y", *sorted(set(packages))], check=True)


def install_crate(*crate):
    """A program from crates.io, beside the others that are only measured."""
    subprocess.run(["cargo", "install", "--root", CACHE, *crate], check=True)


def install(packages):
    """Debian packages, and libtorrent into a virtual environment of its own."""
    install_packages(packages)
    subprocess.run([sys.executable, "-m", "venv", CACHE / "venv"], check=True)
    subprocess.run([CACHE / "venv/bin/pip", "install", "--quiet", "libtorrent"], check=True)


def has_libtorrent(python):
    command = ["sh", "-c", '"$0" -c "import libtorrent" 2>&1', python]
    return subprocess.run(command, capture_output=True).returncode == 0


def build_shoal(directory, programs=("tracker", "seeder", "leecher")):
    """Builds the programs if they are not where they belong; elsewhere they must be there."""
    if all((directory / program).exists() for program in programs):
        return
    if directory != REPO / "target/release":
        raise Failure(f"{', '.join(programs)}: not all of them are in {directory}")
    subprocess.run(["cargo", "build", "--release", "--workspace", "--bins"], cwd=REPO, check=True)


def revision():
    return output("git", "-C", REPO, "describe", "--always", "--dirty").strip()


def abandoned(prefix, names):
    """Of these names, the numbers of processes that are gone: what they left behind can be removed."""
    numbers = {match[1] for match in (re.match(prefix + r"(\d+)(?:-|$)", name) for name in names) if match}
    return [number for number in numbers if not os.path.exists(f"/proc/{number}")]


def remove_abandoned(prefix, place):
    """Remove the scratch directories of runs that were killed without a chance to clean up."""
    for number in abandoned(prefix, [path.name for path in place.iterdir()]):
        for path in place.glob(f"{prefix}{number}*"):
            shutil.rmtree(path, ignore_errors=True)
