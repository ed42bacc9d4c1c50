"""A program that a bench runs. Every line that it prints is kept with the moment at which it came."""
import os, pathlib, re, signal, subprocess, threading, time

from machine import Failure, until


HELD = "held back"


def held(command):
    """The command, which starts when a line comes: programs that are held back can be started in one moment."""
    return ["sh", "-c", f'echo {HELD}; read -r _; exec "$@"', "sh", *command]


class Program:
    def __init__(self, command, directory, name=None):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SHOAL_")}
        self.lines, self.done_at, self.done_mark = [], None, None
        self.name = name or pathlib.Path(command[0]).name
        self.process = subprocess.Popen([str(c) for c in command], cwd=directory, env=environment, text=True, bufsize=1,
                                        start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, errors="replace")
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            now = time.monotonic()
            self.lines.append((now, line.rstrip()))
            if self.done_at is None and self.done_mark and self.done_mark in line:
                self.done_at = now

    def wait_for(self, mark, seconds=20):
        """Wait for a line with this text in it."""
        return self.wait_for_match(re.escape(mark), seconds)

    def wait_for_match(self, pattern, seconds=20):
        """Wait for a line that has the pattern; returns the match. Its moment is then in `matched_at`."""
        found = []

        def look():
            found.extend((at, match) for at, line in list(self.lines) if (match := re.search(pattern, line)))
            return found or self.process.poll() is not None and not self.reader.is_alive()

        until(look, seconds)
        if not found:
            raise Failure(f"no '{pattern}' from {self.name}: {self.last_words()}")
        self.matched_at, match = found[0]
        return match

    def go(self):
        """Start a program that is held back."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def cpu_seconds(self):
        """What it has used so far, of a processor's time."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def last_words(self):
        return " / ".join(line for _, line in self.lines[-3:]) or "it said nothing"

    def stop(self, wait_s=5):
        """Ask it to end, and insist."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self.reader.join(2)

    def kill(self):
        """End it at once, with all that it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
