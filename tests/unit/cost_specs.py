"""Runs whose cost the tests ask for."""

from east.config import RunSpec, load_plan
from east.data.catalog import DATASETS
from east.sparse.schedule import phasing_bounds

PAPER = next(run for run in load_plan() if run.id == "table2/cosine-m10-n2-g1/seed17").spec.model_dump()


def make_spec(
    *,
    dataset: str = "digits",
    width: int = 8,
    activation: str = "relu",
    sharing_ratio: int | None = None,
    dct: bool = False,
    density: float = 0.01,
    topology: str = "rigl",
    update_period: int = 10,
    cyclic: bool = False,
    epochs: int = 4,
    batch_size: int = 64,
) -> RunSpec:
    """A ResNet-34 with a tenth of the images held out; `cyclic` is that of Table B.1."""
    start, end = phasing_bounds(epochs)
    images = {"margin": 0, "padding": "zero", "flip": False, "augment_validation": False}
    held_out = {"validation": DATASETS[dataset].train_images // 10, "validation_choice": "last"}
    model = {"width": width, "activation": activation, "sharing_ratio": sharing_ratio, "dct": dct}
    sparsity = {"density": density, "topology": topology, "update_period": update_period}
    training = {"epochs": epochs, "batch_size": batch_size, "lr_drop_epochs": ()}
    changes = {
        "seed": 1,
        "dataset": {"name": dataset, **images, **held_out},
        "model": PAPER["model"] | model,
        "sparsity": PAPER["sparsity"] | sparsity,
        "cycle": PAPER["cycle"] if cyclic else None,
        "phasing": {"start": start, "end": end, "freeze": False} if activation == "dyrelu" else None,
        "training": PAPER["training"] | training | {"gradient_clip": None, "numerics": "fp32"},
    }
    return RunSpec.model_validate(PAPER | changes)
