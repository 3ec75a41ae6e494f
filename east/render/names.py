"""How networks, data sets, tables and settings are called in print."""

import re

from east.config.vocabulary import ModelName
from east.data import catalog

NETWORKS: dict[ModelName, str] = {
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "resnet50_imagenet": "ResNet-50 (ImageNet)",
}


class _Labels(dict[str, str]):
    """What has no other name in print is printed as the configuration calls it."""

    def __missing__(self, name: str) -> str:
        return name


DATASETS: dict[str, str] = _Labels(catalog.LABELS)


def table_label(identifier: str) -> str | None:
    """The number of a paper's table from its id: `table2` is "Table 2", `tableB1` "Table B.1"; otherwise None."""
    match = re.fullmatch(r"table([A-Z]?)([0-9]+)", identifier)
    if match is None:
        return None
    section, number = match.groups()
    return f"Table {section}.{number}" if section else f"Table {number}"


def capital(text: str) -> str:
    """Begin with a capital letter."""
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """Begin with a capital letter and end with a full stop, as footnotes do."""
    begun = capital(text)
    return begun if begun.endswith((".", "!", "?")) or not begun else f"{begun}."
