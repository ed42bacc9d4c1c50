"""The chart of bench/far: time over the round trip, in relation to curl's over the same link, as SVG."""
import math, statistics

from drawing import COLOURS, line, opening, text

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 960, 424, 64, 116, 64, 56
LEAST, TICKS = 0.8, (1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16)
TITLES = {"shoal": "Shoal, one seeder", "shoal-3": "Shoal, three seeders", "aria2": "aria2, 8 connections to nginx",
          "libtorrent": "libtorrent, tuned", "rqbit": "rqbit, one seeder", "rqbit-3": "rqbit, three seeders"}
LINES = {"shoal": f'stroke="{COLOURS["shoal"]}"', "shoal-3": f'stroke="{COLOURS["shoal"]}" stroke-dasharray="7 5"',
         "aria2": f'stroke="{COLOURS["aria2"]}"', "libtorrent": f'stroke="{COLOURS["libtorrent"]}"',
         "rqbit": f'stroke="{COLOURS["rqbit"]}"', "rqbit-3": f'stroke="{COLOURS["rqbit"]}" stroke-dasharray="7 5"'}


def svg(rows):
    """The links of 1,000 Mbit/s without losses: a line a contestant through the medians."""
    rows = [row for row in rows if (float(row["mbit"]), float(row["loss_percent"])) == (1000, 0)]
    trips = sorted({float(row["round_trip_ms"]) for row in rows})
    median = lambda name, trip: statistics.median(
        float(row["seconds"]) for row in rows if (row["contestant"], float(row["round_trip_ms"])) == (name, trip))
    measured = {(row["contestant"], float(row["round_trip_ms"])) for row in rows}
    names = [name for name in TITLES if all((name, trip) in measured for trip in trips)]
    ratios = {name: [median(name, trip) / median("curl", trip) for trip in trips] for name in names}
    most = max(1.5, *(max(found) for found in ratios.values())) * 1.1
    across = lambda trip: LEFT + (WIDTH - LEFT - RIGHT) * trip / trips[-1]
    # Some take a little longer than curl, and some ten times as long.
    down = lambda ratio: TOP + (HEIGHT - TOP - BOTTOM) * (1 - math.log(ratio / LEAST, most / LEAST))
    parts = opening(WIDTH, HEIGHT, "Time over the round trip", LEFT,
                    "Time for 512 MiB at 1 Gbit/s, in relation to curl from nginx (less is better, logarithmic)")
    for tick in (tick for tick in TICKS if tick < most):
        parts.append(line(LEFT, down(tick), WIDTH - RIGHT, down(tick), 'class="grid"') + text(LEFT - 8, down(tick) + 5, f"{tick:g}", "end"))
    for trip in trips:
        parts.append(text(across(trip), HEIGHT - BOTTOM + 22, f"{trip:g}", "middle"))
    parts.append(text(WIDTH - RIGHT, HEIGHT - 12, "round trip, ms", "end"))
    parts.append(line(LEFT, down(1), WIDTH - RIGHT, down(1), 'class="best" stroke-width="2"') + text(WIDTH - RIGHT + 8, down(1) + 5, "curl"))
    x, y = LEFT, 58
    for name in names:
        width = 56 + 7 * len(TITLES[name])
        if x + width > WIDTH:
            x, y = LEFT, y + 24
        parts.append(line(x, y, x + 26, y, f'{LINES[name]} stroke-width="3"') + text(x + 32, y + 5, TITLES[name]))
        x += width
        points = " ".join(f"{across(trip):.1f},{down(ratio):.1f}" for trip, ratio in zip(trips, ratios[name]))
        parts.append(f'<polyline points="{points}" fill="none" {LINES[name]} stroke-width="3" stroke-linejoin="round"/>')
        parts += [f'<circle cx="{across(trip):.1f}" cy="{down(ratio):.1f}" r="4" fill="none" {LINES[name].split(" stroke-d")[0]} stroke-width="2"/>'
                  for trip, ratio in zip(trips, ratios[name])]
    return "\n".join([*parts, "</svg>", ""])
