"""What a configuration may name, with its parameters: the contents of the registries."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from east.config.choices import FIXED, NAMED_TOPOLOGIES, WIDTH
from east.config.run import CycleSpec, DatasetSpec, ImagesSpec, ModelSpec, SparsitySpec
from east.data.catalog import DATASETS
from east.data.kind import dataset
from east.errors import EastError
from east.models.build import ACTIVATIONS, description_of
from east.plugins import NO_PLUGINS, Catalogue, installed
from east.registry import Entry, Parameter
from east.sparse.kinds import KINDS

OF_A_MASK_UPDATE = ("drop_fraction", "drop_fraction_end", "update_period", "update_on_last_step", "update_until")

ALL_KINDS = (*KINDS.values(), dataset)

LEAST_SHARED = 2
"""Blocks that own weights, at least, where any are shared."""

WORDS = {"activations": "activations", "topologies": "topologies"}
WORDS |= {kind.name: kind.word for kind in ALL_KINDS}
"""Name of a kind -> the word by which it is asked for."""


def registered(word: str | None = None, catalogue: Catalogue = NO_PLUGINS) -> Iterator[dict[str, Any]]:
    """Every part, by kind: its name in the configuration, what it is (empty where the name says all), and parameters.

    These may be set beside it, and have their defaults; None where one must be given. Of registered parts also what
    each parameter means, the paper that they are from, and the file of a plugin. What installed packages offer is among
    them.

    Args:
        word: one kind alone; all if it is None.
        catalogue: what the plugins of a configuration add.

    Raises:
        EastError: there is no such kind.
    """
    if word is not None and word not in WORDS.values():
        raise EastError(f"there is no kind '{word}'. Choose one of {', '.join(WORDS.values())}.")
    return (part for part in _all_parts(catalogue) if word in (None, WORDS[part["kind"]]))


def _all_parts(catalogue: Catalogue) -> Iterator[dict[str, Any]]:
    added = [*catalogue.entries, *_offered(set(catalogue.paths.values()))]
    of_networks = _parameters(ModelSpec, "name", "activation", "ordinary", WIDTH)
    for entry in (*KINDS["network"], *(one for one in added if one.kind is KINDS["network"])):
        about = _of_entry(entry)
        if not entry.facts.module:
            about["parameters"] |= {key: value for key, value in of_networks.items() if _applies(key, entry)}
        yield about
    for name in ACTIVATIONS:
        yield _part("activations", name)
    moves = {key: value for key, value in _parameters(SparsitySpec).items() if key in OF_A_MASK_UPDATE}
    for name, (drop, grow, initial) in NAMED_TOPOLOGIES.items():
        yield _part("topologies", name, moves, f"drop {drop}, grow {grow}, begin with {initial}")
    yield _part("topologies", FIXED, about="the random masks of the start, never changed")
    added = [*catalogue.entries, *_offered(set(catalogue.paths.values()))]
    for kind in ALL_KINDS:
        if kind is KINDS["network"]:
            continue
        for entry in (*kind, *(one for one in added if one.kind is kind)):
            about = _of_entry(entry)
            if kind is KINDS["cycle_pattern"]:
                about["parameters"] |= _parameters(CycleSpec, "pattern")
            if kind is dataset:
                about["about"] = " ".join(text for text in (about["about"], _numbers(entry)) if text)
                about["parameters"] |= _parameters(DatasetSpec, *ImagesSpec.model_fields)
            yield about


def _numbers(entry: Entry) -> str:
    """How many images a data set has, as far as that is known before they are there."""
    info = DATASETS.get(entry.name) if entry.plugin is None else None
    if info is None:
        return ""
    size = f"{info.train_images:,} + {info.test_images:,} images of {' x '.join(map(str, info.image_shape))}"
    return f"{size}, {info.num_classes:,} classes."


def _applies(key: str, entry: Entry) -> bool:
    """Whether a key does anything to a network: weights are shared by blocks that repeat."""
    unknown = key != "sharing_ratio" or entry.plugin is not None
    return unknown or description_of(entry.name, num_classes=2).repeats > LEAST_SHARED


def _offered(known: set[Path]) -> Iterator[Entry]:
    """What installed packages offer beside the plugins of the configuration."""
    yield from Catalogue.of(path for path in installed().values() if path not in known).entries


def _of_entry(entry: Entry) -> dict[str, Any]:
    described = _part(entry.kind.name, entry.name, {one.name: _default(one) for one in entry.parameters}, entry.summary)
    meanings = {one.name: f"{one.meaning} ({one.unit})" if one.unit else one.meaning for one in entry.parameters}
    return described | {
        "meanings": {name: text for name, text in meanings.items() if text},
        "paper": entry.paper,
        "plugin": None if entry.plugin is None else entry.plugin.path,
        **entry.facts.model_dump(mode="json"),
    }


def _part(kind: str, name: str, parameters: Mapping[str, Any] | None = None, about: str = "") -> dict[str, Any]:
    found = {"kind": kind, "name": name, "parameters": dict(parameters or {}), "about": about}
    return found | {"meanings": {}, "paper": "", "plugin": None}


def _default(parameter: Parameter) -> Any:
    return None if parameter.default is inspect.Parameter.empty else parameter.default


def _parameters(spec: type[BaseModel], *without: str) -> dict[str, Any]:
    fields = {name: field for name, field in spec.model_fields.items() if name not in without}
    return {name: None if field.is_required() else field.default for name, field in fields.items()}
