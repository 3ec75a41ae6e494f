"""How networks, data sets, tables and settings are called in print."""

import re

from east.analysis.words import capital
from east.config.vocabulary import ModelName
from east.data import catalog

NETWORKS: dict[ModelName, str] = {
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "resnet50_imagenet": "ResNet-50 (ImageNet)",
}

DATASETS: dict[str, str] = {name: info.label for name, info in catalog.DATASETS.items()}


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
