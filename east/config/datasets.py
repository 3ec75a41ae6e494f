"""Data sets of a configuration: which images they are, and how many, before they are there."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from east.config.choices import Choice, entry_named, named
from east.config.places import Location, Mistake
from east.config.run import ImagesSpec, StatedFacts
from east.config.schema import Config
from east.data.catalog import LABELS, size_of_images, streams
from east.data.kind import DatasetFacts, dataset
from east.data.listing import count_images, layout_of_parameters
from east.errors import EastError
from east.plugins import Catalogue
from east.registry import Entry

COUNTS = ("classes", "train_images", "test_images")
"""Keys by which a configuration says what a source does not know of itself."""


def images_of(config: Config, name: str) -> ImagesSpec:
    """Which images a data set of a configuration is; a folder of images is counted if nothing says its numbers.

    Raises:
        EastError: its numbers are not known; with the place of the data set.
    """
    if name not in config.images:
        config.images[name] = _described(config, name)
    return config.images[name]


def source_entry(config: Config, name: str) -> Entry:
    """What reads a data set of a configuration."""
    reader, _, _ = named(config.datasets[name].source or name)
    return entry_named(dataset, reader, config.catalogue)


def lacks_its_folder(config: Config, name: str) -> bool:
    """Whether a data set is read from a folder, and none is named."""
    return source_entry(config, name).facts.reads == "folder" and config.datasets[name].folder is None


def unknown_names(config: Config) -> Iterator[Mistake]:
    """Names of data sets that stand for nothing, and sources that want parameters."""
    for name, described in config.datasets.items():
        if described.source is None:
            try:
                source_entry(config, name).checked({})
            except ValueError as error:
                yield Mistake(("datasets", name), f"{error}. Set `source: {{name: {name}, ...}}`.")
    known = list(dict.fromkeys((*config.datasets, *known_sources(config.catalogue))))
    for name, recipe in config.recipes.items():
        for index, used in enumerate(recipe.datasets):
            if used not in known:
                yield Mistake(("recipes", name, "datasets", index), _unknown(used, known))


def unknown_sources(datasets: object, catalogue: Catalogue) -> Iterator[Mistake]:
    """Of data sets as they are written, those that neither have a source nor the name of one."""
    known = known_sources(catalogue)
    for name, described in datasets.items() if isinstance(datasets, Mapping) else ():
        if isinstance(described, Mapping) and described.get("source") is None and name not in known:
            sentence = f"{_unknown(str(name), known)} Or say in `source` what reads it, such as `source: image_folder`."
            yield Mistake(("datasets", name), sentence)


def known_sources(catalogue: Catalogue) -> list[str]:
    """The names of what can read images, of the project and of plugins."""
    return [*(entry.name for entry in dataset), *catalogue.names(dataset)]


def _unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name[:60], known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"there is no data set '{name[:60]}'.{hint} Choose one of {', '.join(known)}."


def without_effect_on_images(config: Config) -> Iterator[Mistake]:
    """Keys of data sets that would have no effect."""
    for name, described in config.datasets.items():
        location, entry = ("datasets", name), source_entry(config, name)
        facts: DatasetFacts = entry.facts
        if described.folder is not None and facts.reads == "nothing":
            sentence = f"{name} is read from no folder; it is prepared in execution.data_dir. Remove it."
            yield Mistake((*location, "folder"), sentence)
        if entry.plugin is None:
            for key in COUNTS:
                known, given = getattr(facts, key), getattr(described, key)
                if known is not None and given is not None:
                    sentence = f"{entry.title} has {known:,}, which nothing here changes. Leave it out."
                    yield Mistake((*location, key), sentence)
        _, parameters, _ = named(described.source or name)
        if described.margin and streams(entry, parameters):
            sentence = f"images of {LABELS.get(name, name)} are cropped at random and never padded. Set it to 0."
            yield Mistake((*location, "margin"), sentence)
        if described.validation_choice == "last" and described.validation and entry.plugin and facts.by_class:
            sentence = f"{name} comes class by class, so 'last' would hold out whole classes. Use shuffled."
            yield Mistake((*location, "validation_choice"), sentence)


def _described(config: Config, name: str) -> ImagesSpec:
    described, entry = config.datasets[name], source_entry(config, name)
    facts: DatasetFacts = entry.facts
    _, parameters, _ = named(described.source or name)
    source: str | Choice = described.source or name
    if described.source is None and entry.plugin is not None:
        source = Choice(name=name, plugin=entry.plugin.digest)
    own = {key: getattr(described, key) for key in (*COUNTS, "mean", "std") if getattr(described, key) is not None}
    known: dict[str, Any] = {key: getattr(facts, key) for key in (*COUNTS, "mean", "std")} | own
    known["image_size"] = size_of_images(entry, parameters)
    missing = [key for key in COUNTS if known[key] is None]
    if missing and entry.facts.reads == "folder" and entry.plugin is None:
        known |= dict(zip(COUNTS, _counted(config, name, parameters), strict=True)) | own
        missing = []
    location: Location = ("datasets", name)
    if missing:
        sentence = f"nothing says how many {_words(missing)} it has. Set {', '.join(missing)}."
        _refuse(config, location, sentence)
    if known["image_size"] is None:
        sentence = (
            f"{entry.place}: {entry.title} does not say how large its images are. Give its decorator `image_size`, or "
            "it a parameter `size`."
        )
        raise EastError(sentence)
    is_own = entry.plugin is None and facts.classes is not None and not own
    return ImagesSpec(
        name=name, source=None if source == name else source, facts=None if is_own else StatedFacts(**known)
    )


def _counted(config: Config, name: str, parameters: dict[str, Any]) -> tuple[int, int, int]:
    """Classes and images of a folder."""
    folder, location = config.datasets[name].folder, ("datasets", name, "folder")
    declare = f"Or set {', '.join(COUNTS)}, to plan before the images are there."
    if folder is None:
        _refuse(config, location[:2], f"it needs the folder of its images. Set `folder`. {declare}")
    try:
        return count_images(Path(folder), layout_of_parameters(parameters))
    except EastError as error:
        _refuse(config, location, f"{error} {declare}")


def _refuse(config: Config, location: Location, sentence: str) -> NoReturn:
    config.sources.refuse([Mistake(location, sentence)])
    raise AssertionError("whoever refuses a mistake raises")


def _words(keys: list[str]) -> str:
    words = {"classes": "classes", "train_images": "images to train on", "test_images": "images to test on"}
    return " and ".join(words[key] for key in keys)
