"""Runs whose cost the tests ask for."""

from typing import Any

from east.config.run import (
    CycleSpec,
    DatasetSpec,
    ModelSpec,
    OptimizerSpec,
    PhasingSpec,
    RunSpec,
    SparsitySpec,
    TrainingSpec,
)
from east.data.catalog import DATASETS
from east.sparse.schedule import phasing_bounds


def make_spec(
    *,
    dataset: Any = "digits",
    width: int = 8,
    activation: Any = "relu",
    sharing_ratio: int | None = None,
    dct: bool = False,
    density: float = 0.01,
    topology: Any = "rigl",
    update_period: int = 10,
    cyclic: bool = False,
    epochs: int = 4,
    batch_size: int = 64,
) -> RunSpec:
    """A ResNet-34 with a tenth of the images held out; `cyclic` is that of Table B.1."""
    cycle = CycleSpec(
        pattern="cosine",
        multiplier=10,
        cycles=2,
        cycle_length=50,
        length_multiplier=1,
        update_period=350,
        end="target",
    )
    start, end = phasing_bounds(epochs)
    return RunSpec(
        seed=1,
        dataset=DatasetSpec(
            name=dataset,
            margin=0,
            padding="zero",
            flip=False,
            validation=DATASETS[dataset].train_images // 10,
            validation_choice="last",
            augment_validation=False,
        ),
        model=ModelSpec(name="resnet34", width=width, activation=activation, sharing_ratio=sharing_ratio, dct=dct),
        sparsity=SparsitySpec(
            density=density,
            distribution="erk",
            topology=topology,
            drop_fraction=0.5,
            drop_fraction_end=0.005,
            update_period=update_period,
            update_on_last_step=False,
        ),
        cycle=cycle if cyclic else None,
        phasing=PhasingSpec(start=start, end=end, freeze=False) if activation == "dyrelu" else None,
        training=TrainingSpec(
            epochs=epochs,
            batch_size=batch_size,
            lr=0.1,
            lr_drop_epochs=(),
            lr_drop_factor=0.1,
            optimizer=OptimizerSpec(name="sgd", momentum=0.9, nesterov=True),
            weight_decay=1e-4,
            gradient_clip=None,
            numerics="fp32",
        ),
    )
