"""One run that no configuration has yet: the entry that would make it a row, and the run that this entry plans."""

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from east.config import Plan, Run, make_plan
from east.config.choices import NAMED_TOPOLOGIES
from east.config.files import configuration_file, merge, merged_files, validate
from east.config.run import CycleSpec, DatasetSpec, ModelSpec, RunSpec, SparsitySpec, TrainingSpec
from east.config.schema import Components, Config, Dataset, Readings, Recipe, Row
from east.config.yaml_file import read_yaml
from east.data.catalog import steps_per_epoch
from east.errors import EastError
from east.models.build import description_of
from east.operations.parts import registered
from east.sparse.kinds import network

TABLE = "tableTry"
METHODS_FILE = "config/methods.yaml"

UPDATES = 10
UPDATES_OF_A_CYCLE = 4
"""Mask updates that a training, and a cycle, has at least where it has the steps: a short one shortens the periods."""

STEPS_OF_AN_EPOCH = 40
LEAST_BATCH = 16
"""A data set with fewer steps an epoch halves its batch, down to this one."""

UNWRITTEN = "the run that is tried"
"""What mistakes name in place of a file."""

PLAIN_DATA = {"margin": 0, "padding": "zero", "flip": False, "validation": 0, "validation_choice": "last"}
"""For a data set that the configuration does not describe: images as they are, all of them trained on."""

RULES = ("drop", "grow", "initial")
"""Of a topology, in the order of `NAMED_TOPOLOGIES`."""

EAST = {"activation": "dyrelu", "sharing_ratio": 2}
"""What the paper's system adds to the network, beside cycles."""

PARTS: dict[str, tuple[type[BaseModel], tuple[tuple[str, type[BaseModel]], ...]]] = {
    "training": (TrainingSpec, (("recipe", Recipe), ("readings", Readings))),
    "model": (ModelSpec, (("components", Components), ("recipe", Recipe))),
    "sparsity": (SparsitySpec, (("recipe", Recipe), ("row", Row), ("readings", Readings))),
    "cycle": (CycleSpec, (("row", Row),)),
    "dataset": (DatasetSpec, (("data", Dataset), ("readings", Readings))),
}
"""Part of a run -> its settings, and the sections of an entry that may have one of that name, the first being right."""

OTHERS = {
    "cycle.update_period": ("cyclic", "update_period"),
    "cycle.end": ("readings", "cycle_end"),
    "phasing.freeze": ("readings", "phasing_freeze"),
    "density_schedule": ("row", "density_schedule"),
}
"""Settings whose names in a configuration are others, or mean something else."""


@dataclass(frozen=True)
class Trial:
    """A run, and what a configuration must say to have it.

    Attributes:
        entry: what an overlay says.
        plan: that of the entry alone.
        run: the one run of its table that is meant.
    """

    entry: Mapping[str, Any]
    plan: Plan
    run: Run

    def text(self) -> str:
        """The entry as YAML."""
        return yaml.safe_dump(self.entry, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)


def methods() -> dict[str, dict[str, Any]]:
    """Word for a method -> its row: the paper's `east`, and every row with a label in config/methods.yaml.

    Raises:
        EastError: that file cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    for table in read_yaml(configuration_file(METHODS_FILE)).get("tables", {}).values():
        for row in (table or {}).get("rows", ()):
            if "label" in row:
                found[_word(row["label"])] = row
    # Cycles as the recipe has them, in place of a row that has only them of the paper's system.
    return {"east": {"label": "EAST"}} | {word: row for word, row in found.items() if word != "east"}


def make_trial(
    model: str,
    dataset: str,
    method: str,
    *,
    density: float | None = None,
    settings: Sequence[str] = (),
    seed: int | None = None,
    plugins: Sequence[Path] = (),
    configfiles: Sequence[Path] = (),
) -> Trial:
    """The run of a method on a network and a data set.

    Its recipe is that of the table whose network and data set are the most alike, scaled to the length of the training:
    epochs after which the rate drops and lengths of cycles keep their share of it, and masks are updated often enough.

    Args:
        model: a network, see `east list networks`.
        dataset: a data set, see `east list datasets`.
        method: a key of `methods`.
        density: the target; that of the configuration if None.
        settings: `KEY=VALUE`, by the keys of a run's settings (`training.lr`).
        seed: of the run; the configuration's first if None.
        plugins: files that add to the methods, beside those of the configuration.
        configfiles: overlays of config.yaml to begin with.

    Raises:
        EastError: there is no such network, data set, method or setting, or the run cannot be.
    """
    merged, paths = merged_files(*configfiles)
    config = validate(merged, paths)
    added: dict[str, Any] = {}
    if plugins:
        added = {"plugins": [*_plugins_of(merged, config), *map(str, plugins)]}
        config = validate(merge(merged, added), paths, elsewhere=UNWRITTEN)
    rows = methods()
    for known, name, what in (
        (_names("networks", config), model, "network"),
        ([*dict.fromkeys((*_names("datasets", config), *config.datasets))], dataset, "data set"),
        (list(rows), method, "method"),
    ):
        _refuse_unknown(name, known, what)
    chosen = dict(map(_parsed, settings))
    if density is not None:
        chosen.setdefault("sparsity.density", density)
    entry = _Entry.begin(merged, config, model, dataset, method, rows[method])
    for key, value in chosen.items():
        entry.set(key, value)
    entry.scale(chosen)
    spec = _planned(added | entry.with_short_periods(), merged, paths, seed).run.spec
    entry.shorten(spec, chosen)
    return _planned(added | entry.written(), merged, paths, seed)


@dataclass
class _Entry:
    """An entry while it is made.

    Attributes:
        name: of its recipe.
        dataset: name of the data set.
        recipe: as YAML has it.
        row: likewise.
        components: what the method adds to the network.
        data: how the data set is split and augmented, as far as that is not the configuration's.
        readings: that are not the configuration's.
        reference: epochs of the recipe that it began as.
    """

    name: str
    dataset: str
    recipe: dict[str, Any]
    row: dict[str, Any]
    components: dict[str, Any]
    data: dict[str, Any]
    readings: dict[str, Any]
    reference: int

    @classmethod
    def begin(
        cls,
        merged: Mapping[str, Any],
        config: Config,
        model: str,
        dataset: str,
        method: str,
        of_method: Mapping[str, Any],
    ) -> "_Entry":
        """The recipe that suits best, and the row of a method."""
        base = copy.deepcopy(dict(merged["recipes"][_nearest_recipe(config, model, dataset)]))
        base.pop("components", None)
        base.pop("density", None)
        row = copy.deepcopy(dict(of_method))
        components: dict[str, Any] = {}
        cyclic = base["cyclic"] or {"multiplier": 10, "cycles": 2, "cycle_length": base["epochs"] / 5}
        if method == "east":
            components = {
                key: value for key, value in EAST.items() if key != "sharing_ratio" or _repeats(config, model)
            }
            row |= {"pattern": "cosine"} | {key: value for key, value in cyclic.items() if key != "update_period"}
        is_cyclic = not row.get("static") and "density_schedule" not in row
        base |= {"system": row["label"], "model": model, "datasets": [dataset]}
        base["cyclic"] = {"update_period": base["update_period"]} | cyclic if is_cyclic else None
        known = dataset in merged["datasets"]
        return cls(
            name=f"try-{model}-{dataset}-{method}",
            dataset=dataset,
            recipe=base,
            row=row,
            components=components,
            data={} if known else dict(PLAIN_DATA),
            readings={},
            reference=base["epochs"],
        )

    def set(self, key: str, value: Any) -> None:
        """Set what a run's description has under a key of settings.

        Raises:
            EastError: there is no such key, or what it says follows from others.
        """
        known = settings_of_runs()
        part, _, rest = key.partition(".")
        name, _, inner = rest.partition(".")
        whole = f"{part}.{name}" if rest else part
        _refuse_unknown(whole, list(known), "setting")
        section, name = known[whole]
        # What the method's own row decides is decided there.
        place = self.row if name in self.row and part == "sparsity" else self._section(section)
        path = [name, *(inner.split(".") if inner else ())]
        for step in path[:-1]:
            below = place.get(step)
            if step == "topology" and below in NAMED_TOPOLOGIES:
                below = dict(zip(RULES, NAMED_TOPOLOGIES[below], strict=True))
            place[step] = dict(below) if isinstance(below, Mapping) else {}
            place = place[step]
        place[path[-1]] = value

    def scale(self, chosen: Mapping[str, Any]) -> None:
        """Let what counts epochs keep its share of a training of another length."""
        epochs, reference = self.recipe["epochs"], self.reference
        if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1 or epochs == reference:
            return  # what is no number of epochs is refused when the entry is validated
        if "training.lr_drop_epochs" not in chosen:
            drops = {round(drop * epochs / reference) for drop in self.recipe["lr_drop_epochs"]}
            self.recipe["lr_drop_epochs"] = sorted(drop for drop in drops if 0 < drop < epochs)
            if not self.recipe["lr_drop_epochs"]:
                self.recipe.pop("lr_drop_factor", None)
        if "training.warmup_epochs" not in chosen and self.recipe.get("warmup_epochs"):
            self.recipe["warmup_epochs"] = round(self.recipe["warmup_epochs"] * epochs / reference, 4)
        if self.recipe["cyclic"] is not None and "cycle.cycle_length" not in chosen:
            length = self.row.get("cycle_length", self.recipe["cyclic"]["cycle_length"])
            self.row["cycle_length"] = round(length * epochs / reference, 4)

    def with_short_periods(self) -> dict[str, Any]:
        """The entry with masks that are updated at every step, which any training has room for."""
        other = copy.deepcopy(self)
        other.recipe["update_period"] = 1
        other.row.pop("update_period", None)
        if other.recipe["cyclic"] is not None:
            other.recipe["cyclic"]["update_period"] = 1
        return other.written()

    def shorten(self, spec: RunSpec, chosen: Mapping[str, Any]) -> None:
        """Let a small data set have smaller batches, and a short training update its masks often enough.

        Args:
            spec: the run as it is without that.
            chosen: settings that stay as they are.
        """
        if "training.batch_size" not in chosen:
            while self.recipe["batch_size"] > LEAST_BATCH and steps_per_epoch(spec) < STEPS_OF_AN_EPOCH:
                self.recipe["batch_size"] //= 2
                spec = spec.model_copy(
                    update={"training": spec.training.model_copy(update={"batch_size": self.recipe["batch_size"]})}
                )
        steps = self.recipe["epochs"] * steps_per_epoch(spec)
        if "sparsity.update_period" not in chosen:
            longest = max(1, steps // UPDATES)
            for section in (self.recipe, self.row):
                if section.get("update_period", 0) > longest:
                    section["update_period"] = longest
        if self.recipe["cyclic"] is not None and "cycle.update_period" not in chosen:
            length = self.row.get("cycle_length", self.recipe["cyclic"]["cycle_length"])
            longest = max(1, int(length * steps / self.recipe["epochs"]) // UPDATES_OF_A_CYCLE)
            self.recipe["cyclic"]["update_period"] = min(longest, self.recipe["cyclic"]["update_period"])

    def written(self) -> dict[str, Any]:
        """What an overlay says."""
        table: dict[str, Any] = {"recipe": self.name, "dataset": self.dataset, "title": "One run, tried"}
        if self.components:
            table["components"] = self.components
        found: dict[str, Any] = {"recipes": {self.name: self.recipe}, "tables": {TABLE: table | {"rows": [self.row]}}}
        if self.data:
            found["datasets"] = {self.dataset: self.data}
        if self.readings:
            found["readings"] = self.readings
        return copy.deepcopy(found)

    def _section(self, name: str) -> dict[str, Any]:
        if name == "cyclic":
            return self.recipe["cyclic"] or {}
        found: dict[str, Any] = getattr(self, name)
        return found


def settings_of_runs() -> dict[str, tuple[str, str]]:
    """Key of a run's settings -> the section of an entry that it is written in, and its name there."""
    found: dict[str, tuple[str, str]] = {}
    for part, (described, places) in PARTS.items():
        for name in described.model_fields:
            section = next((section for section, schema in places if name in schema.model_fields), None)
            if section is not None:
                found[f"{part}.{name}"] = (section, name)
    return found | OTHERS


def _repeats(config: Config, model: str) -> bool:
    """Whether a network has blocks that could share weights; of a plugin's nobody knows before it is trained."""
    return config.catalogue.get(network, model) is not None or description_of(model, num_classes=2).repeats > 2


def _names(word: str, config: Config) -> list[str]:
    """What a configuration may name of a kind, by the word for it."""
    return [part["name"] for part in registered(word, config.catalogue)]


def _plugins_of(merged: Mapping[str, Any], config: Config) -> list[str]:
    """The plugins of a configuration, named such that it does not matter from where."""
    installed = [name for name in merged.get("plugins", ()) if not name.endswith(".py")]
    return installed + [str(path.absolute()) for path in config.catalogue.paths.values() if path.suffix == ".py"]


def _nearest_recipe(config: Config, model: str, dataset: str) -> str:
    """The recipe by which the configuration trains this network on this data set, or what is the most like it."""
    known = [
        (table.model or config.recipes[table.recipe].model, table.dataset, table.recipe)
        for table in config.tables.values()
    ]
    known += [(config.recipes[name].model, data, name) for data, name in config.methods.recipes.items()]
    known += [(recipe.model, data, name) for name, recipe in config.recipes.items() for data in recipe.datasets]
    return min(known, key=lambda one: (one[0] != model, one[1] != dataset))[2]


def _planned(entry: dict[str, Any], merged: Mapping[str, Any], paths: Sequence[Path], seed: int | None) -> Trial:
    """Plan an entry over the configuration, whose own tables are left out."""
    seeds = list(merged["seeds"])
    if seed is not None and seed not in seeds:
        entry = {"seeds": [seed]} | entry
    alone = {"tables": dict.fromkeys(merged["tables"])}
    plan = make_plan(validate(merge(merge(merged, alone), entry), paths, elsewhere=UNWRITTEN))
    wanted = plan.config.seeds[0] if seed is None else seed
    return Trial(entry, plan, next(run for run in plan.runs if (run.table, run.spec.seed) == (TABLE, wanted)))


def _parsed(setting: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`."""
    key, found, text = setting.partition("=")
    if not found or not key.strip():
        raise EastError(f"--set {setting}: write KEY=VALUE, for example training.epochs=3.")
    for read in (int, float):
        try:
            return key.strip(), read(text)
        except ValueError:
            pass
    try:
        return key.strip(), yaml.safe_load(text)
    except yaml.YAMLError:
        raise EastError(f"--set {setting}: '{text}' is not valid YAML. Put it in quotes.") from None


def _refuse_unknown(name: str, known: Sequence[str], what: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name[:60], known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise EastError(f"there is no {what} '{name[:60]}'.{hint} Choose one of {', '.join(known)}.")


def _word(label: str) -> str:
    """A label as a word of a command."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
