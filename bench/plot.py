"""Bar charts as SVG: one file per measure, a group of bars per shape."""

from xml.sax.saxutils import escape

COLOURS = {
    "gatherd": "#1b6ca8", "gatherd-eos": "#7fb2d6", "floor": "#8a8a8a", "lanes": "#b8b8b8", "aiohttp": "#d9822b", "httpx": "#f0b878",
    "bento": "#5a9e4b", "parallel-consumer": "#a04d9a", "wrk": "#333333",
}
BAR, GAP, LEFT, WIDTH = 15, 18, 150, 760


def text(x, y, words, anchor="start", size=11):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def bars(title, groups):
    """groups: [(shape, [(contestant, value)])]; lengths on one scale from 0."""
    most = max(value for _, rows in groups for _, value in rows)
    out, y = [text(10, 20, title, size=14)], 40
    for shape, rows in groups:
        out.append(text(10, y + BAR - 4, shape))
        for name, value in rows:
            length = (WIDTH - LEFT - 210) * value / most if most else 0
            out.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 3}" fill="{COLOURS.get(name, "#000")}"/>')
            out.append(text(LEFT + length + 5, y + BAR - 5, f"{name} {value:,.1f}"))
            y += BAR
        y += GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', *out, "</svg>"]) + "\n"


PLOTS = [
    # file, title, key, divisor
    ("cpu", "CPU per fetch, microseconds (less is better)", "cpu_us", 1),
    ("rate", "Fetches a second (more is better)", "rate", 1),
    ("p50", "Job produced to result appended, p50, ms", "p50_ms", 1),
    ("p99", "Job produced to result appended, p99, ms", "p99_ms", 1),
    ("memory", "Peak anonymous memory, MiB", "anon_peak", 1 << 20),
]


def write(out, summary):
    """One SVG per measure that was taken."""
    for name, title, key, divisor in PLOTS:
        groups = [(shape, [(who, row[key] / divisor) for who, row in rows.items() if row[key] is not None])
                  for shape, rows in summary.items()]
        groups = [(shape, rows) for shape, rows in groups if rows]
        if groups:
            (out / f"{name}.svg").write_text(bars(title, groups))
