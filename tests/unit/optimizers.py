"""The optimizers of tests: those that runs have, without a run."""

from east.config.run import OptimizerSpec, TrainingSpec
from east.training.optimizer import make_optimizer


def make(name, parameters, active, arithmetic, *, weight_decay=0.0, **options):
    """An optimizer by name."""
    spec = TrainingSpec(
        epochs=1,
        batch_size=1,
        lr=0.1,
        lr_drop_epochs=(),
        lr_drop_factor=0.1,
        optimizer=OptimizerSpec(name=name, **options),
        weight_decay=weight_decay,
        gradient_clip=None,
        numerics="fp32",
    )
    return make_optimizer(parameters, active, spec, arithmetic)


def Sgd(parameters, active, *, arithmetic, weight_decay, **options):
    return make("sgd", parameters, active, arithmetic, weight_decay=weight_decay, **options)


def Adam(parameters, active, *, arithmetic, weight_decay):
    return make("adam", parameters, active, arithmetic, weight_decay=weight_decay)


def AdamW(parameters, active, *, arithmetic, weight_decay):
    return make("adamw", parameters, active, arithmetic, weight_decay=weight_decay)
