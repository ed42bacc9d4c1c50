"""What the plots share: how they look in light and dark, lines, words."""

COLOURS = {"shoal": "#1f82c8", "aria2": "#d55e00", "libtorrent": "#009e73", "libtorrent-tuned": "#cc79a7",
           "rqbit": "#e69f00"}
STYLE = """
text { font: 14px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 } .back { fill: #ffffff } .grid { stroke: #d0d7de } .best { stroke: #57606a }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .back { fill: #0d1117 } .grid { stroke: #30363d } .best { stroke: #9da7b3 }
}"""


def opening(width, height, name, left, headline):
    """The beginning of a plot, with its headline."""
    return [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img"><title>{name}</title><style>{STYLE}</style>',
            f'<rect class="back" width="{width}" height="{height}" rx="8"/>',
            f'<text class="title" x="{left}" y="30">{headline}</text>']


def line(x1, y1, x2, y2, style):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def text(x, y, words, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'
