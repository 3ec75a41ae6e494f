"""What Table 6 counts and measures, as one description that the workflow can pass on."""

from typing import Literal, TypeVar, get_args

from pydantic import Field

from east.config.plan import PAPER_WIDTH, method_specs
from east.config.run import DatasetName, Frozen, ModelName, PositiveInt, RunSpec
from east.config.schema import Config
from east.errors import EastError

MODELS: tuple[ModelName, ...] = get_args(ModelName)
T = TypeVar("T", bound=str)


class CostEntry(Frozen):
    """A row of Table 6."""

    method: str
    measured_at_beta: Literal[0, 1] = Field(description="DyReLU weight in the paper's memory measurement")
    spec: RunSpec


class CostPlan(Frozen):
    """All rows of Table 6, and how they are measured."""

    model: ModelName
    dataset: DatasetName
    published: str | None
    comparable: bool = Field(description="whether network, width and data set are the paper's")
    measured_steps: PositiveInt
    measured_batch: dict[Literal["cpu", "cuda"], PositiveInt]
    entries: tuple[CostEntry, ...]


def cost_plan(config: Config, model: str | None = None, dataset: str | None = None) -> CostPlan:
    """Table 6 of a configuration.

    Args:
        config: the configuration.
        model: network in place of the configured one.
        dataset: data set in place of the configured one.

    Raises:
        EastError: there is no such network or data set.
    """
    settings = config.cost
    network = settings.model if model is None else _one_of(MODELS, model, "--model")
    data = settings.dataset if dataset is None else _one_of(tuple(config.datasets), dataset, "--dataset")
    width = config.recipes[settings.recipe].width
    return CostPlan(
        model=network,
        dataset=data,
        published=settings.published,
        comparable=(network, data, width) == ("resnet34", "cifar100", PAPER_WIDTH),
        measured_steps=settings.measured_steps,
        measured_batch=settings.measured_batch,
        entries=tuple(
            CostEntry(method=name, measured_at_beta=config.methods.rows[name].measured_at_beta, spec=spec)
            for name, spec in method_specs(config, network, data).items()
        ),
    )


def _one_of(known: tuple[T, ...], name: str, option: str) -> T:
    for choice in known:
        if choice == name:
            return choice
    raise EastError(f"{option}: there is no '{name}'. Choose one of {', '.join(known)}.")
