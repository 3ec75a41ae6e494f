"""Configuration files: merged as Snakemake merges them, validated, and every mistake located."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from east.config.choices import CATALOGUE
from east.config.datasets import unknown_sources
from east.config.mistakes import explain
from east.config.places import BASE, COMMAND_LINE, Mistake, Origins
from east.config.references import broken_references
from east.config.schema import Config
from east.config.shorten import shortened
from east.config.yaml_file import read_yaml
from east.errors import EastError
from east.plugins import NO_PLUGINS, Catalogue, find

REMOVABLE = ("recipes", "tables", "datasets", "claims", "methods.recipes", "methods.rows")
"""Mappings from which an overlay takes an entry away by null."""
OF_A_MODULE = "the module's config"
"""What mistakes say in place of a file where another workflow gives the values."""


def read_config(*overlays: str | Path) -> Config:
    """The validated configuration: config.yaml with each overlay merged over it, in order.

    Raises:
        EastError: a file is missing or not valid YAML, or a key or value is wrong; all mistakes are named at once.
    """
    return validate(*merged_files(*overlays))


def merged_files(*overlays: str | Path) -> tuple[dict[str, Any], list[Path]]:
    """What config.yaml and each overlay over it say together, before it is validated, and these files.

    Raises:
        EastError: a file is missing or not valid YAML.
    """
    paths = [base_config(), *(Path(overlay) for overlay in overlays)]
    merged: dict[str, Any] = {}
    for path in paths:
        merged = merge(merged, read_yaml(path))
    return merged, paths


def read_given(given: Mapping[str, Any], files: Sequence[str | Path], project: Path) -> Config:
    """The validated configuration of a workflow that is under way.

    Args:
        given: what Snakemake has merged; or what another workflow gives this one, its module: a whole configuration,
            or an overlay of config.yaml.
        files: the configuration files of the workflow that is under way.
        project: the folder of config.yaml.

    Raises:
        EastError: a file is not valid YAML, or a key or value is wrong.
    """
    base = project / BASE
    if any(field.is_required() and name not in given for name, field in Config.model_fields.items()):
        return validate(merge(read_yaml(base), given), [base], elsewhere=OF_A_MODULE)
    is_ours = any(Path(file).resolve() == base.resolve() for file in files)
    return validate(given, files if is_ours else ())


def base_config() -> Path:
    """The config.yaml of the working directory or, from elsewhere, of the project that holds this package.

    Raises:
        EastError: there is none.
    """
    return configuration_file(BASE)


def configuration_file(name: str) -> Path:
    """A file of the project's configuration, found as `base_config` is.

    Raises:
        EastError: there is none.
    """
    for folder in (Path.cwd(), Path(__file__).parents[2]):
        if (folder / name).is_file():
            return folder / name
    raise EastError(f"there is no {name} in {Path.cwd()}. Run the command from the project's folder.")


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key, anything else is replaced: what Snakemake does with `--configfile`."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def validate(merged: Mapping[str, Any], sources: Iterable[str | Path] = (), elsewhere: str = COMMAND_LINE) -> Config:
    """Validate a merged configuration.

    Args:
        merged: plain mappings and lists; an entry of a `REMOVABLE` mapping that is null is left out.
        sources: the files it came from, in any order; used to name file and line of a mistake, now and later.
        elsewhere: what has the values that no file holds.

    Raises:
        EastError: one line per mistake: file and line, key, what is wrong, what is allowed.
    """
    origin = Origins.of(merged, sources, elsewhere)
    catalogue = _plugins(merged, origin)
    written = _without_removed(merged)
    unknown = list(unknown_sources(written.get("datasets"), catalogue))
    for mistake in unknown:  # of what nobody knows, nothing else is said
        del written["datasets"][mistake.location[-1]]
    try:
        config = Config.model_validate(written, context={CATALOGUE: catalogue})
    except ValidationError as error:
        origin.refuse([*unknown, *explain(error, merged)])
        raise
    origin.refuse(unknown)
    config.came_from(origin, catalogue)
    origin.refuse(broken_references(config))
    return shortened(config)


def _plugins(merged: Mapping[str, Any], origin: Origins) -> Catalogue:
    """What the plugins of a configuration register: read from their sources, not executed.

    Raises:
        EastError: one is not there, or its source is not one.
    """
    named = merged.get("plugins")
    if not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
        return NO_PLUGINS  # the schema says what is wrong, if anything is
    folder, paths, mistakes = origin.folder(("plugins",)), [], []
    for index, name in enumerate(named):
        try:
            path = find(name, folder)
        except EastError as error:
            mistakes.append(Mistake(("plugins", index), f"{error}."))
            continue
        if os.pathsep in str(path.absolute()):
            mistakes.append(Mistake(("plugins", index), f"the path of a plugin must not contain '{os.pathsep}'."))
        paths.append(path)
    origin.refuse(mistakes)
    return Catalogue.of(dict.fromkeys(paths))


def _without_removed(node: Any, path: str = "") -> Any:
    """A configuration, or what stands at a dotted path in it, without the entries that an overlay took away."""
    if not isinstance(node, Mapping):
        return node
    return {
        key: _without_removed(value, f"{path}.{key}".lstrip("."))
        for key, value in node.items()
        if value is not None or path not in REMOVABLE
    }
