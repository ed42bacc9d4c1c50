"""How fast a seeder hashes what it is to share, and a leecher what it finds, beside OpenSSL on one core times the cores."""
import json, re, time

from machine import Failure, output
from transfer_run import Run, size_of

STEPS = {"speed": "`openssl speed`, blocks of 16 KiB, one core", "dgst": "`openssl dgst -sha256`, one core",
         "first": "seeder, first start until it is registered", "second": "seeder, second start, from the hash cache",
         "resume": "leecher, started again: until what is there is proved"}
ENOUGH = 0.8                                           # of the share: then the leecher is stopped, to be started again


def measure_hashing(options, source, number):
    """Yields one row a step."""
    row = dict(table="hashing", run=number, seeders=1)
    with Run(options, "shoal", source) as run:
        busy = f"{run.get_ready():.0%}"
        said = output("openssl", "speed", "-elapsed", "-seconds", 2, "-bytes", 16384, "-evp", "sha256")
        rate = float(re.search(r"sha256\s+([\d.]+)k", said, re.IGNORECASE)[1]) * 1000
        yield dict(row, contestant="speed", wall_s=f"{size_of(source) / rate:.3f}", ok="ok", busy_before=busy)
        began = time.monotonic()
        output("openssl", "dgst", "-sha256", source)
        yield dict(row, contestant="dgst", wall_s=f"{time.monotonic() - began:.3f}", ok="ok", busy_before=busy)
        tracker = run.start([options.bin / "tracker", "--bind", "127.0.0.1", "-p", 0, "--no-log-file"], counts=False)
        address = tracker.wait_for_match(r"listening on (\S+)")[1]
        for step in ("first", "second"):
            began = time.monotonic()
            seeder = run.start([options.bin / "seeder", "-f", source, "-p", 0, "--bind", "127.0.0.1", "--tracker", address,
                                "--cache-dir", run.base / "hashes", "--no-log-file"])
            seeder.wait_for("Registered", options.timeout)
            yield dict(row, contestant=step, wall_s=f"{seeder.matched_at - began:.3f}", ok="ok", busy_before=busy,
                       seeder_cpu_s=f"{run.seeders_cpu():.2f}")
            if step == "first":
                seeder.stop()
                run.serving.clear()
        yield dict(row, **resume(options, run, address), busy_before=busy)


def resume(options, run, tracker):
    """Stops a leecher when most of the share is there, and starts it again."""
    command = [options.bin / "leecher", "--tracker", tracker, "--no-log-file", "--json", "-o", run.base / "out/resumed",
               run.source.name]
    enough, leecher = size_of(run.source) * ENOUGH, run.start(command, counts=False)
    end = time.monotonic() + options.timeout
    while time.monotonic() < end and leecher.process.poll() is None:
        heard = [json.loads(line) for _, line in list(leecher.lines) if '"event":"progress"' in line]
        if heard and heard[-1]["bytes"] >= enough:
            break
        time.sleep(0.01)
    leecher.stop(30)
    began = time.monotonic()
    again = run.start(command, counts=False)
    resumed = int(again.wait_for_match(r'"event":"started".*"resumed":(\d+)', options.timeout)[1])
    if resumed == 0:
        raise Failure("the leecher was done before it could be stopped: nothing was resumed")
    if again.process.wait(options.timeout):
        raise Failure(f"the leecher that went on failed: {again.last_words()}")
    took = again.matched_at - began
    # As if all of the share had been there, so that one column of bytes a second fits all rows.
    return dict(contestant="resume", wall_s=f"{took * size_of(run.source) / resumed:.3f}", ok="ok")
