"""How numbers are printed: accuracies, signed differences, counts, sizes and durations."""

from east.analysis import words
from east.analysis.aggregate import Accuracy
from east.render.names import sentence

DASH = "–"
NOT_AVAILABLE = "n.a."
MINUS = "−"


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with a fixed number of decimals, a dash for None, and never a negative zero."""
    if value is None:
        return DASH
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed_or_dash(value: float | None, digits: int = 1) -> str:
    """A difference with its sign (`+2.1`, `−0.3`, `0.0`), and a dash for None."""
    return DASH if value is None else words.signed(value, digits)


def plus_minus(mean: float | None, std: float | None) -> str:
    """Mean and standard deviation with two decimals; the mean alone where there is no deviation."""
    if mean is None:
        return NOT_AVAILABLE
    return fixed(mean) if std is None else f"{fixed(mean)} ± {fixed(std)}"


def accuracy_text(accuracy: Accuracy) -> str:
    """A row's accuracy, with how many seeds are behind it where some are not, or why there is no number."""
    if not accuracy.planned:
        return NOT_AVAILABLE
    if not accuracy.used:
        diverged, missing = len(accuracy.with_status("diverged")), len(accuracy.with_status("missing"))
        if not missing:
            return f"{NOT_AVAILABLE} (diverged)"
        if not diverged:
            return f"{NOT_AVAILABLE} (not run)"
        return f"{NOT_AVAILABLE} ({diverged} diverged, {missing} not run)"
    text = plus_minus(accuracy.mean, accuracy.std)
    return text if accuracy.complete else f"{text} ({accuracy.used} of {accuracy.planned} seeds)"


def seeds_note(accuracy: Accuracy) -> str | None:
    """Which seeds of a row are not behind its number and why, as a sentence; None if all are."""
    parts = [
        f"seed {seed.seed} diverged" + (f" in epoch {seed.diverged_at_epoch}" if seed.diverged_at_epoch else "")
        for seed in accuracy.with_status("diverged")
    ]
    missing = [str(seed.seed) for seed in accuracy.with_status("missing")]
    if missing:
        parts.append(f"seed{'s' if len(missing) > 1 else ''} {', '.join(missing)} not run")
    return sentence("; ".join(parts)) if parts else None


def density_text(density: float) -> str:
    """A density without an exponent: `0.0005`."""
    return f"{density:.10f}".rstrip("0").rstrip(".")


def setting_text(value: float | None, suffix: str = "") -> str:
    """A schedule setting as the paper prints it: `3`, `2×`, or a dash."""
    return DASH if value is None else f"{value:g}{suffix}"


def thousands(value: int | None) -> str:
    """A count with thin spaces between thousands, and a dash for None."""
    return DASH if value is None else f"{value:,}".replace(",", "\u202f")


def quantity(value: float | None) -> str:
    """Three significant digits with a decimal prefix (`1.16 G`), and a dash for None."""
    if value is None:
        return DASH
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if float(f"{abs(value):.3g}") >= factor:
            return f"{_three_digits(value / factor)} {prefix}"
    return _three_digits(value)


def _three_digits(value: float) -> str:
    rounded = float(f"{value:.3g}")
    if abs(rounded) < 1:
        return f"{value:.3g}".replace("-", MINUS)
    return fixed(value, max(0, 3 - len(str(int(abs(rounded))))))


def duration(seconds: float) -> str:
    """A time for people: `42 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
