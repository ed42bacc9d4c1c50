"""The tables of bench/transfer: what each compares, and how it is written in Markdown."""
import dataclasses, os, statistics

from transfer_hashing import STEPS
from transfer_peers import CONTESTANTS

ALL = ["floor", "shoal", "curl", "curl-sum", "aria2-http", "libtorrent", "rqbit", "aria2", "sendme"]
COLUMNS = "date rev machine table place contestant seeders mib run ok wall_s ratio leecher_cpu_s seeder_cpu_s " \
          "leecher_mib leecher_own_mib seeder_mib seeder_own_mib median_s machine_cpu_s origin_copies others_cpu_s stolen_s " \
          "busy_before".split()


@dataclasses.dataclass
class Table:
    about: str
    contestants: list
    seeders: tuple = (3,)
    sizes_mib: tuple = (1024,)
    on_disk: bool = False


TABLES = {
    "memory": Table("one leecher; source and target in memory", ALL, seeders=(1, 3)),
    "disk": Table("one leecher; source and target on disk", ["floor", "floor-synced", "shoal", "rqbit", "aria2-http"],
                  on_disk=True),
    "crowd": Table("16 leechers that serve each other", ["shoal", "libtorrent", "aria2", "rqbit"], (1,), (256,)),
    "hashing": Table("hashing when a seeder starts and when a leecher goes on", ["shoal"], (1,), (4096,)),
    "sizes": Table("small and large files", ["floor", "shoal"], sizes_mib=(64, 1024, 8192)),
    "files": Table("a directory of 10,000 files of 4 KiB", ["shoal", "rsync", "libtorrent", "aria2", "rqbit"], (1,), (39,)),
    "profile": Table("where the processor time goes", ["floor", "shoal"]),
}


def markdown(name, rows):
    rows = [row for row in rows if row["table"] == name and row["ok"] == "ok"]
    if rows:
        about = f"{rows[0]['machine']}, {rows[0]['date'][:10]}, revision {rows[0]['rev']}"
        print(f"\n### {name}: {TABLES[name].about}\n\n{about}")
        {"crowd": crowd, "hashing": hashing, "sizes": sizes}.get(name, transfers)(rows)
        noisy = [row for row in rows if float(row["others_cpu_s"] or 0) > 0.3 * float(row["wall_s"]) + 0.2]
        if noisy:
            print(f"\nIn {len(noisy)} of {len(rows)} runs other programs used the processors: "
                  + ", ".join(sorted({f"{row['contestant']} {row['run']}" for row in noisy})))


def transfers(rows):
    print("\n| seeders | contestant | runs | wall, s: median (min to max) | ÷ floor | leecher CPU, s/GiB | seeders CPU, s/GiB "
          "| leecher MiB | seeder MiB |\n|---|---|---|---|---|---|---|---|---|")
    for (seeders, contestant), mine in groups(rows, "seeders", "contestant"):
        gib = float(mine[0]["mib"]) / 1024
        only = "" if CONTESTANTS[contestant].many_sources or seeders == "1" else ", one source"
        cpu = f"{middle(mine, 'leecher_cpu_s', 2, gib)} | {middle(mine, 'seeder_cpu_s', 2, gib)}"
        print(f"| {seeders} | {CONTESTANTS[contestant].title}{only} | {len(mine)} | {spread(mine, 'wall_s')} | "
              f"{middle(mine, 'ratio', 2)} | {cpu} | {memory(mine, 'leecher')} | {memory(mine, 'seeder')} |")


def crowd(rows):
    print("\n| contestant | runs | the last has all after, s | half have all after, s | origin copies | seeder CPU, s "
          "| CPU of all, s |\n|---|---|---|---|---|---|---|")
    for (contestant,), mine in groups(rows, "contestant"):
        print(f"| {CONTESTANTS[contestant].title} | {len(mine)} | {spread(mine, 'wall_s')} | {middle(mine, 'median_s', 2)} | "
              f"{spread(mine, 'origin_copies')} | {middle(mine, 'seeder_cpu_s', 2)} | {middle(mine, 'machine_cpu_s', 1)} |")


def sizes(rows):
    print("\n| MiB | contestant | runs | s/GiB: median (min to max) | ÷ floor | CPU of both sides, s/GiB | leecher MiB "
          "| seeder MiB |\n|---|---|---|---|---|---|---|---|")
    for (mib, contestant), mine in groups(rows, "mib", "contestant"):
        gib = int(mib) / 1024
        cpu = statistics.median(float(row["leecher_cpu_s"]) + float(row["seeder_cpu_s"]) for row in mine) / gib
        print(f"| {mib} | {CONTESTANTS[contestant].title} | {len(mine)} | {spread(mine, 'wall_s', 2, gib)} | "
              f"{middle(mine, 'ratio', 2)} | {cpu:.2f} | {memory(mine, 'leecher')} | {memory(mine, 'seeder')} |")


def hashing(rows):
    cores, gib = os.cpu_count(), float(rows[0]["mib"]) / 1024
    took = {(row["contestant"], row["run"]): float(row["wall_s"]) for row in rows}
    print(f"\n| step, {gib:g} GiB | runs | s: median (min to max) | GB/s | ÷ (`openssl dgst` × {cores} cores) "
          f"| ÷ (`openssl speed` × {cores} cores) |\n|---|---|---|---|---|---|")
    for (step,), mine in groups(rows, "contestant"):
        # Within a turn, as all ratios are: the second start reads nothing, so it has none.
        ratios = [statistics.median(took[other, row["run"]] / cores / float(row["wall_s"]) for row in mine)
                  for other in ("dgst", "speed")]
        rates = [gib * 1.073741824 / statistics.median(values(mine, "wall_s")), *ratios]
        rates = [""] * 3 if step == "second" else [f"{rate:.2f}" for rate in rates]
        print(f"| {STEPS[step]} | {len(mine)} | {spread(mine, 'wall_s', 3)} | {' | '.join(rates)} |")


def groups(rows, *columns):
    """The rows by these columns, in the order in which they came."""
    keys = dict.fromkeys(tuple(row[column] for column in columns) for row in rows)
    return [(key, [row for row in rows if tuple(row[column] for column in columns) == key]) for key in keys]


def values(rows, column, unit=1):
    return [float(row[column]) / unit for row in rows if row[column]]


def middle(rows, column, digits, unit=1):
    found = values(rows, column, unit)
    return f"{statistics.median(found):.{digits}f}" if found else ""


def spread(rows, column, digits=2, unit=1):
    found = values(rows, column, unit)
    return f"{statistics.median(found):.{digits}f} ({min(found):.{digits}f} to {max(found):.{digits}f})"


def memory(rows, side):
    """What was resident; in brackets what was the program's own, where mapped files make much of the difference."""
    resident, own = values(rows, f"{side}_mib"), values(rows, f"{side}_own_mib")
    resident, own = statistics.median(resident), statistics.median(own)
    return f"{resident:.0f} ({own:.0f})" if resident > 64 and own < resident / 2 else f"{resident:.0f}"
