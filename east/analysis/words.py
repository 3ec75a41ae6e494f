"""How numbers and settings stand in the sentences of the analysis."""

from collections.abc import Mapping, Sequence

from east.config.conditions import Value


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign and a true minus: `+0.31`, `−4.07`, `0.00`."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def capital(text: str) -> str:
    """Begin with a capital letter."""
    return text[:1].upper() + text[1:]


def p_text(p: float) -> str:
    """A p-value with three decimals, or that it is below 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 row`, `3 rows`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def sharing_text(runs: int | None) -> str | None:
    """What is to be said of seconds that were taken while so many trainings may have shared a device; None for one."""
    return f"{runs} trainings a GPU" if runs is not None and runs > 1 else None


def listed(parts: Sequence[str]) -> str:
    """Join with commas and a last "and"."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def schedule_text(
    pattern: str | None, multiplier: float | None, cycles: int | None, length_multiplier: float | None
) -> str:
    """The four schedule columns of Tables 2-5: `cosine, 10×, 2 cycles, 2×`, or `static`."""
    if pattern is None:
        return "static"
    parts = [pattern]
    if multiplier is not None:
        parts.append(f"{multiplier:g}×")
    if cycles is not None:
        parts.append(counted(cycles, "cycle"))
    if length_multiplier is not None:
        parts.append(f"{length_multiplier:g}×")
    return ", ".join(parts)


def axis_text(value: Value) -> str:
    """What a row has on an axis: a number without an exponent, a word as it is, nothing for nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        plain = f"{value:.10f}".rstrip("0").rstrip(".")
        return plain if float(plain) == value else f"{value:g}"
    return str(value)


def axes_text(values: Mapping[str, Value]) -> str:
    """A row's values on axes of a table's own, such as `density 0.001`; words need no name of their axis."""
    texts = {axis: axis_text(value) for axis, value in values.items() if value is not None}
    return ", ".join(text if isinstance(values[axis], str) else f"{axis} {text}" for axis, text in texts.items())
