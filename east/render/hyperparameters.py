"""Table B.1: the settings that each system of the plan trains with, above the paper's."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from east.analysis.published import FROM_DISK, Read, read_published_rows
from east.config.choices import Choice, chosen_name
from east.config.run import OptimizerSpec
from east.config.schema import Config, Recipe
from east.errors import EastError
from east.render.names import DATASETS, network_label
from east.render.numbers import DASH
from east.render.rendered import Quantity, Rendered, render_views, view_of
from east.render.templating import caption
from east.render.view import Cell, Column, Footnotes

_COLUMNS = {
    "model": Column(label="Model"),
    "method": Column(label="Method"),
    "data": Column(label="Data"),
    "batch_size": Column(label="BS", align="right"),
    "epochs": Column(label="Epochs", align="right"),
    "lr": Column(label="LR", align="right"),
    "lr_drop_epochs": Column(label="LR Drop Epochs"),
    "optimizer": Column(label="Opt"),
    "weight_decay": Column(label="WD", align="right"),
    "init": Column(label="Init"),
    "cyclic_n": Column(label="n", group="Cyclic", align="right"),
    "cyclic_l": Column(label="l", group="Cyclic", align="right"),
    "cyclic_m": Column(label="m", group="Cyclic", align="right"),
    "delta_t_cs": Column(label="ΔT cs", group="Cyclic", align="right"),
    "delta_t_dst": Column(label="ΔT dst", align="right"),
}


def hyperparameter_rows(config: Config) -> list[dict[str, str]]:
    """The recipes of a configuration in the columns of Table B.1."""
    return [_hyperparameters(recipe) for recipe in config.recipes.values()]


def render_hyperparameters(rows: Sequence[Mapping[str, object]], published: Path, read: Read = FROM_DISK) -> Rendered:
    """Print Table B.1 with the plan's settings above the paper's.

    A system of the plan is set beside the published row of the same model and method; if the paper has several,
    beside the one with the same data as well.

    Raises:
        EastError: A row lacks a column or has one too many, or the published file cannot be read.
    """
    printed = published_systems(published, read)
    records: list[dict[str, str]] = []
    lacking: list[dict[str, str]] = []
    for row in map(_texts, rows):
        partner = _partner(row, printed)
        differing = [key for key in _COLUMNS if partner and not _same(row[key], partner[key])]
        records.append({"source": "plan", **row, "differs": " ".join(differing)})
        if partner:
            records.append({"source": "paper", **partner, "differs": ""})
        else:
            lacking.append(records[-1])
    footnotes = Footnotes()

    def source(record: dict[str, str]) -> Cell:
        marks = footnotes.marks(["The paper's Table B.1 has no such system."] if record in lacking else [])
        return Cell(text="This plan" if record["source"] == "plan" else "Paper", marks=marks)

    def setting(key: str) -> Callable[[dict[str, str]], Cell]:
        return lambda record: Cell(
            text=DASH if record[key] in {"", "-"} else record[key],
            tone="differs" if key in record["differs"].split() else "plain",
        )

    view = view_of(
        [Quantity(Column(label=""), source), *(Quantity(column, setting(key)) for key, column in _COLUMNS.items())],
        records,
        footnotes=footnotes,
        begins=lambda _, record: record["source"] == "plan",
        reference=lambda record: record["source"] == "paper",
        id="tableB1",
        label="Table B.1",
        caption=caption("table-B1"),
        sortable=False,
    )
    return render_views([view], ["source", *_COLUMNS, "differs"], records)


def published_systems(path: Path, read: Read = FROM_DISK) -> list[dict[str, str]]:
    """The rows of the paper's Table B.1, as `read_published_rows` does.

    Raises:
        EastError: The file cannot be read, or has other columns.
    """
    printed = read_published_rows(path, read)
    if list(printed[0]) != list(_COLUMNS):
        raise EastError(f"{path} does not have the columns {', '.join(_COLUMNS)}.")
    return printed


def _texts(row: Mapping[str, object]) -> dict[str, str]:
    wrong = set(row) ^ set(_COLUMNS)
    if wrong:
        raise EastError(f"A row of Table B.1 has missing or unknown columns: {', '.join(sorted(map(str, wrong)))}.")
    return {key: "" if row[key] is None else str(row[key]) for key in _COLUMNS}


def _partner(row: Mapping[str, str], printed: Sequence[dict[str, str]]) -> dict[str, str] | None:
    system = [other for other in printed if all(_same(row[key], other[key]) for key in ("model", "method"))]
    if len(system) > 1:
        system = [other for other in system if _same(row["data"], other["data"])]
    return system[0] if system else None


def _same(first: str, second: str) -> bool:
    try:
        return float(first) == float(second)
    except ValueError:
        return _normalized(first) == _normalized(second)


def _normalized(text: str) -> str:
    compact = "".join(text.split()).casefold()
    return "" if compact in {"-", DASH} else compact


def _hyperparameters(recipe: Recipe) -> dict[str, str]:
    cyclic = recipe.cyclic
    drops = ",".join(map(str, recipe.lr_drop_epochs))
    both = set(recipe.datasets) == {"cifar10", "cifar100"}
    drops_text = f"{1 / recipe.lr_drop_factor:g}x[{drops}]" if drops else "-"
    rate = drops_text if recipe.lr_schedule is None else str(recipe.lr_schedule)
    warm = f"{recipe.warmup_epochs:g} up, then " if recipe.warmup_epochs else ""
    return {
        "model": network_label(recipe.model).split(" (")[0],
        "method": recipe.system,
        "data": "CIFAR-10/100" if both else ", ".join(DATASETS[name] for name in recipe.datasets),
        "batch_size": str(recipe.batch_size),
        "epochs": str(recipe.epochs),
        "lr": f"{recipe.lr:g}",
        "lr_drop_epochs": warm + rate,
        "optimizer": _optimizer(recipe.optimizer),
        "weight_decay": f"{recipe.weight_decay:.1e}",
        "init": chosen_name(recipe.distribution).split("_")[0].upper(),
        "cyclic_n": str(cyclic.cycles) if cyclic else "-",
        "cyclic_l": f"{cyclic.cycle_length:g}" if cyclic else "-",
        "cyclic_m": f"{cyclic.multiplier:g}" if cyclic else "-",
        "delta_t_cs": str(cyclic.update_period) if cyclic else "-",
        "delta_t_dst": str(recipe.update_period),
    }


def _optimizer(spec: OptimizerSpec) -> str:
    """As Table B.1 prints it; parameters other than SGD's momentum are named."""
    if spec.plugin is None and spec.name == "sgd":
        return f"SGD({spec.momentum:g})"
    name = {"adam": "Adam", "adamw": "AdamW"}.get(spec.name, spec.name) if spec.plugin is None else spec.name
    return str(Choice(name=name, parameters=spec.parameters))
