"""Plots made of characters: a curve in Braille dots, and a line of bars; in plain ASCII where nothing else shows."""

from collections.abc import Sequence
from statistics import fmean

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Of a Braille character, by row and column."""
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*#%"
_LABEL = 7
"""Characters of the numbers beside a curve."""


def curve(
    xs: Sequence[float], ys: Sequence[float], *, end: float, width: int, height: int, ascii_only: bool
) -> list[str]:
    """A curve with its axes, as lines of text.

    Args:
        xs: from 0 on, ascending; at least one.
        ys: as many.
        end: where the horizontal axis ends, above 0 and at least the last x.
        width: characters of a line, at least 20.
        height: lines of the curve itself, at least 2.
        ascii_only: draw with asterisks in place of dots.
    """
    columns = width - _LABEL - 2
    low, high = min(ys), max(ys)
    if high == low:
        low, high = low - 0.5, high + 0.5
    across, down = (1, 1) if ascii_only else (2, 4)
    last_column, last_row = columns * across - 1, height * down - 1

    def place(x: float, y: float) -> tuple[int, int]:
        return round(last_column * x / end), round(last_row * (high - y) / (high - low))

    cells = [[0] * columns for _ in range(height)]
    points = [place(x, y) for x, y in zip(xs, ys, strict=True)]
    for (x, y), (next_x, next_y) in zip(points, [*points[1:], points[-1]], strict=True):
        steps = max(abs(next_x - x), abs(next_y - y), 1)
        for step in range(steps + 1):
            column, row = x + (next_x - x) * step // steps, y + (next_y - y) * step // steps
            cells[row // down][column // across] |= _DOTS[row % down][column % across]
    labels = {0: high, height - 1: low}
    lines = []
    for row, dots in enumerate(cells):
        label = f"{labels[row]:.4g}" if row in labels else ""
        marks = (
            ("*" if dot else " " for dot in dots) if ascii_only else (chr(0x2800 + dot) if dot else " " for dot in dots)
        )
        lines.append(f"{label:>{_LABEL}} {'|' if ascii_only else '│'}{''.join(marks)}".rstrip())
    corner, bar = ("+", "-") if ascii_only else ("└", "─")
    lines.append(f"{'':>{_LABEL}} {corner}{bar * columns}")
    lines.append(f"{'0':>{_LABEL + 3}}{f'{end:g}':>{columns - 1}}")
    return lines


def bars(values: Sequence[float], width: int, *, ascii_only: bool) -> str:
    """A bar of eight heights for the mean of each of so many equal parts of a series.

    Args:
        values: the series, at least one; fewer values than parts give a bar each.
        width: number of parts.
        ascii_only: draw with punctuation in place of blocks.
    """
    parts, count = min(width, len(values)), len(values)
    means = [fmean(values[part * count // parts : (part + 1) * count // parts]) for part in range(parts)]
    low, high = min(means), max(means)
    levels = _ASCII_BARS if ascii_only else _BARS
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(levels[int((mean - low) * scale + 0.5)] for mean in means)
