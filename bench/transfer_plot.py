"""The bar chart of bench/transfer: how long each contestant takes for the same file from three seeders, as SVG."""
import statistics

from drawing import COLOURS, line, opening, text

WIDTH, LEFT, TOP, ROW, RIGHT = 960, 330, 62, 34, 90


def svg(rows, titles):
    """One bar a contestant, the fastest first: the median, and a line from the least to the most."""
    times = {name: [float(row["wall_s"]) for row in rows if row["contestant"] == name] for name in titles}
    times = dict(sorted(((name, found) for name, found in times.items() if found), key=lambda item: statistics.median(item[1])))
    height, end = TOP + ROW * len(times) + 34, max(max(found) for found in times.values())
    across = lambda seconds: LEFT + (WIDTH - LEFT - RIGHT) * seconds / end
    parts = opening(WIDTH, height, "Seconds for one transfer", 24,
                    f"Seconds for {rows[0]['mib']} MiB from {rows[0]['seeders']} seeders on one machine (less is better)")
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 1e9) if end / step <= 8)
    for tick in range(int(end / step) + 1):
        x = across(tick * step)
        parts.append(line(x, TOP - 8, x, height - 30, 'class="grid"') + text(x, height - 12, f"{tick * step:g}", "middle"))
    for number, (name, found) in enumerate(times.items()):
        y, middle = TOP + ROW * number, statistics.median(found)
        colour = COLOURS["shoal"] if name == "shoal" else "#8c959f"
        parts.append(text(LEFT - 10, y + 17, titles[name], "end"))
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{across(middle) - LEFT:.1f}" height="24" rx="2" fill="{colour}"/>')
        parts.append(line(across(min(found)), y + 12, across(max(found)), y + 12, 'class="best" stroke-width="2"'))
        parts.append(text(across(max(found)) + 8, y + 17, f"{middle:.2f}"))
    return "\n".join([*parts, "</svg>", ""])
