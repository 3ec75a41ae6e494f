"""Small drawings in the line of the text, as inline SVG; their colours come from the style sheet."""

from collections.abc import Sequence

from markupsafe import Markup

from east.analysis.curves import Curve
from east.render.numbers import fixed
from east.render.view import Interval

MOST_POINTS = 60
"""Of a curve that is as wide as a few words."""

_WIDTH, _HEIGHT, _PADDING = 128.0, 34.0, 2.0
_INTERVAL_WIDTH, _INTERVAL_HEIGHT = 108.0, 14.0


def curve_drawing(curve: Curve, *, epochs: int, highest: float) -> Markup:
    """A learning curve.

    Args:
        curve: Test accuracy by epoch, in percent.
        epochs: Right end of the horizontal axis, which starts at the first epoch; at least 1.
        highest: Upper end of the vertical axis, which starts at 0; more than 0.
    """
    first, last = curve.epochs[0], curve.epochs[-1]
    points = [
        (
            _PADDING + (_WIDTH - 2 * _PADDING) * (curve.epochs[i] - 1) / max(1, epochs - 1),
            _HEIGHT - _PADDING - (_HEIGHT - 2 * _PADDING) * curve.values[i] / highest,
        )
        for i in _spread(len(curve.epochs))
    ]
    path = " ".join(f"{_short(x)},{_short(y)}" for x, y in points)
    x, y = points[-1]
    label = (
        f"Test accuracy from {fixed(curve.values[0], 1)} % after epoch {first} "
        f"to {fixed(curve.values[-1], 1)} % after epoch {last}"
    )
    return Markup(
        '<svg class="curve" role="img" aria-label="{label}" viewBox="0 0 {width} {height}" width="{width}" '
        'height="{height}"><path class="axis" d="M0,{bottom}H{width}"/><polyline points="{path}"/>'
        '<circle cx="{x}" cy="{y}" r="1.8"/></svg>'
    ).format(
        label=label,
        width=_short(_WIDTH),
        height=_short(_HEIGHT),
        bottom=_short(_HEIGHT - 0.5),
        path=path,
        x=_short(x),
        y=_short(y),
    )


def interval_drawing(interval: Interval) -> Markup:
    """A difference with its interval, over the band in which it counts as none. The numbers stand beside it."""

    def across(points: float) -> str:
        held = max(-interval.reach, min(interval.reach, points))
        return _short(_INTERVAL_WIDTH / 2 * (1 + held / interval.reach))

    middle = _short(_INTERVAL_HEIGHT / 2)
    return Markup(
        '<svg class="interval" aria-hidden="true" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        '<rect class="band" x="{left}" width="{band}" height="{height}"/><path class="zero" d="M{zero},0V{height}"/>'
        '<path class="line" d="M{low},{middle}H{high}"/><circle cx="{at}" cy="{middle}" r="2.6"/></svg>'
    ).format(
        width=_short(_INTERVAL_WIDTH),
        height=_short(_INTERVAL_HEIGHT),
        left=across(-interval.margin),
        band=_short(float(across(interval.margin)) - float(across(-interval.margin))),
        zero=across(0),
        low=across(interval.low),
        high=across(interval.high),
        at=across(interval.difference),
        middle=middle,
    )


def bar_drawing(parts: Sequence[tuple[str, float]]) -> Markup:
    """A bar of parts beside each other: a class of the style sheet and a share, between 0 and 1, for each."""
    pieces = []
    start = 0.0
    for name, share in parts:
        pieces.append(
            Markup('<rect class="{}" x="{}%" width="{}%" height="100%"/>').format(
                name, _short(100 * start, 3), _short(100 * share, 3)
            )
        )
        start += share
    return Markup('<svg class="bar" aria-hidden="true" width="100%" height="8">{}</svg>').format(
        Markup("").join(pieces)
    )


def _spread(count: int) -> list[int]:
    """At most `MOST_POINTS` places among so many, the first and the last among them."""
    points = min(count, MOST_POINTS)
    return [round(i * (count - 1) / max(1, points - 1)) for i in range(points)]


def _short(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")
