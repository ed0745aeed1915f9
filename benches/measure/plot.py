"""The figures as a picture (SVG): each as a share of its goal, and the cost of a GiB by what varies.

A bar that ends left of the line keeps its goal; where more is better, the share is turned round.
"""
from html import escape

from .figures import quantity

WIDTH = 900
ROW = 20
LABEL = 400
VALUE = 190
COLOURS = {"kinetail": "#2f6fab", "fluent-bit": "#b8860b", "vector": "#8a4f7d"}
MISSED = "#c0392b"
INK = "#222"
FAINT = "#bbb"


def draw(figures, origin):
    """Returns the picture of the figures."""
    goals = [figure for figure in figures if figure.goal is not None]
    flat = {}
    for figure in figures:
        if figure.part == "flat" and figure.goal is None:
            flat.setdefault(axis(figure), []).append(figure)
    bars, height = shares(goals, 60)
    curves, height = costs(flat, height + 40) if flat else ([], height)
    title = text(10, 24, "kinetail: figures against their goals", size=17, weight="bold")
    under = text(10, 42, origin, fill="#666", size=11)
    body = "\n".join([title, under, *bars, *curves])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 20}" '
        f'font-family="system-ui, sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def share(figure):
    """Returns the figure as a share of its goal: 1 is the goal, less is better."""
    if figure.least:
        return figure.goal / figure.value if figure.value else float("inf")
    return figure.value / figure.goal


def shares(figures, top):
    """Draws a bar for each figure; returns the elements and where they end."""
    longest = min(max([1.25, *map(share, figures)]), 8)
    scale = (WIDTH - LABEL - VALUE) / longest
    drawn, y = [], top
    for figure in figures:
        length = min(share(figure), longest) * scale
        colour = COLOURS.get(figure.agent, FAINT)
        if figure.agent == "kinetail" and not figure.met:
            colour = MISSED
        name = figure.what if figure.agent == "kinetail" else f"{figure.agent}: {figure.what}"
        drawn += [
            text(LABEL - 8, y + 13, f"{figure.part}: {name}", anchor="end", size=11),
            rect(LABEL, y + 3, max(length, 1), ROW - 6, colour),
            text(WIDTH - VALUE + 8, y + 13, f"{quantity(figure.value, figure.unit)} of {figure.aim}", size=11),
        ]
        y += ROW
    drawn.append(rule(LABEL + scale, top - 6, LABEL + scale, y, INK))
    drawn.append(text(LABEL + scale, y + 14, "the goal", anchor="middle", size=11))
    return drawn, y + 14


def axis(figure):
    """Returns what varies: the name of a case without its number."""
    words = figure.what.removeprefix("CPU per GiB, ").split()
    return "size" if words[-1] == "MB" else " ".join(word for word in words if not word[0].isdigit())


def costs(flat, top):
    """Draws the cost of a GiB as a curve for each that varies; returns the elements and their end."""
    tall, wide, gap = 130, 220, 70
    most = max(figure.value for row in flat.values() for figure in row) * 1.15
    drawn, x = [text(10, top, "CPU seconds per GiB", weight="bold")], 60
    base = top + 20 + tall
    for name, row in flat.items():
        drawn += [rule(x, base, x + wide, base, FAINT), rule(x, base - tall, x, base, FAINT)]
        drawn += [text(x - 6, base - tall + 4, f"{most:.1f}", anchor="end", size=10),
                  text(x - 6, base + 4, "0", anchor="end", size=10)]
        step = wide / max(1, len(row) - 1)
        points = [(x + number * step, base - figure.value / most * tall) for number, figure in enumerate(row)]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS["kinetail"]}" stroke-width="2"/>')
        for (across, down), figure in zip(points, row):
            number = next(word for word in figure.what.removeprefix("CPU per GiB, ").split() if word[0].isdigit())
            drawn += [
                f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{COLOURS["kinetail"]}"/>',
                text(across, down - 8, f"{figure.value:.2f}", anchor="middle", size=10),
                text(across, base + 14, number, anchor="middle", size=10),
            ]
        drawn.append(text(x + wide / 2, base + 30, {"size": "MB in 20 files"}.get(name, name), anchor="middle", size=11))
        x += wide + gap
    return drawn, base + 36


def text(x, y, words, anchor="start", size=12, fill=INK, weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'font-weight="{weight}" fill="{fill}">{escape(words)}</text>')


def rect(x, y, width, height, fill):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'


def rule(x1, y1, x2, y2, stroke):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"/>'
