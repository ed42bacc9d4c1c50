"""The plot of bench/swarm: how many leechers have the file after how many seconds, as SVG."""
import statistics

from drawing import COLOURS, line, opening, text

WIDTH, HEIGHT, LEFT, TOP, GAP, PLOT_HEIGHT = 960, 400, 56, 84, 56, 250

def svg(rows, order):
    """Draws, of each contestant and number of leechers, the run whose last finisher is the median."""
    sizes = sorted({row["leechers"] for row in rows})
    names = [name for name in order if any(row["contestant"] == name for row in rows)]
    chosen = {(n, name): median_run([r for r in rows if (r["leechers"], r["contestant"]) == (n, name)])
              for n in sizes for name in names}
    chosen = {key: row for key, row in chosen.items() if row}
    end = max(float(row["last_s"]) for row in chosen.values()) * 1.06
    width = (WIDTH - LEFT - 24 - GAP * (len(sizes) - 1)) / len(sizes)
    best = rows[0]["t_opt_s"]
    parts = opening(WIDTH, HEIGHT, "Leechers done over time", LEFT,
                    f"Leechers that have the whole {rows[0]['mib']} MiB, over time")
    x = LEFT
    for name in names:                                 # the legend
        parts.append(line(x, 52, x + 26, 52, f'stroke="{COLOURS[name]}" stroke-width="3"') + text(x + 32, 57, name))
        x += 60 + 8 * len(name)
    parts.append(line(x, 52, x + 26, 52, 'class="best" stroke-width="2" stroke-dasharray="6 4"') +
                 text(x + 32, 57, f"T_opt, {best} s: nothing can be faster" if len({r["t_opt_s"] for r in rows}) == 1 else
                      "T_opt: nothing can be faster"))
    for index, n in enumerate(sizes):
        left = LEFT + index * (width + GAP)
        parts += panel(n, left, width, end, {name: chosen[n, name] for name in names if (n, name) in chosen})
    return "\n".join([*parts, "</svg>", ""])


def panel(n, left, width, end, runs):
    """One pair of axes with the lines of all contestants."""
    across = lambda seconds: left + width * seconds / end
    down = lambda count: TOP + 20 + PLOT_HEIGHT * (1 - count / n)
    for count in range(0, n + 1, max(1, n // 4)):
        yield line(left, down(count), left + width, down(count), 'class="grid"') + text(left - 8, down(count) + 5, count, "end")
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1e9) if end / s <= 8)
    for tick in range(0, int(end) + 1, int(step)):
        yield line(across(tick), down(0), across(tick), down(0) + 5, 'class="grid"')
        yield text(across(tick), down(0) + 22, tick, "middle")
    yield text(left, TOP + 8, f"{n} leechers")
    yield text(left + width, down(0) + 42, "seconds after the start", "end")
    for name, run in runs.items():
        path, points = f"M{across(0):.1f} {down(0):.1f}", [float(t) for t in run["done_s"].split(",")]
        for count, seconds in enumerate(points, 1):
            path += f"H{across(seconds):.1f}V{down(count):.1f}"
        yield f'<path d="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="3" stroke-linejoin="round"/>'
    best = across(max(float(run["t_opt_s"]) for run in runs.values()))
    yield line(best, down(n) - 6, best, down(0), 'class="best" stroke-width="2" stroke-dasharray="6 4"')


def median_run(rows):
    """The run in the middle by its last finisher (of an even number, the slower of the two)."""
    if not rows:
        return None
    middle = statistics.median_high(float(row["last_s"]) for row in rows)
    return next(row for row in rows if float(row["last_s"]) == middle)
