"""How networks, data sets, tables and settings are called in print."""

import re

from east.analysis.words import capital
from east.config.choices import Choice
from east.data import catalog
from east.sparse.kinds import network


class _Labels(dict[str, str]):
    """What has no other name in print is printed as the configuration calls it."""

    def __missing__(self, name: str) -> str:
        return name


DATASETS: dict[str, str] = _Labels(catalog.LABELS)


def network_label(choice: str | Choice) -> str:
    """What a network is called; a plugin's by its name, as whoever prints executes no plugin."""
    entry = next((one for one in network if one.name == choice), None)
    return (entry.facts.label if entry else "") or str(choice)


def width_label(width: int | None) -> str:
    """A network's width as it stands behind its name; nothing where it has none."""
    return "" if width is None else f" of width {width}"


def table_label(identifier: str) -> str | None:
    """The number of a paper's table from its id: `table2` is "Table 2", `tableB1` "Table B.1"; otherwise None."""
    match = re.fullmatch(r"table([A-Z]?)([0-9]+)", identifier)
    if match is None:
        return None
    section, number = match.groups()
    return f"Table {section}.{number}" if section else f"Table {number}"


_AXES = {"lr": "LR", "model": "Network", "topology.grow": "Growth", "topology.drop": "Drop", "dataset": "Data"}


def axis_label(axis: str) -> str:
    """An axis of a table's own as the heading of a column."""
    return _AXES.get(axis, capital(axis.replace("_", " ").replace(".", " ")))


def sentence(text: str) -> str:
    """Begin with a capital letter and end with a full stop, as footnotes do."""
    begun = capital(text)
    return begun if begun.endswith((".", "!", "?")) or not begun else f"{begun}."
