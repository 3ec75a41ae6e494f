import pytest

from east.config.run import OptimizerSpec, TrainingSpec
from east.training.recipe import learning_rate


def recipe(**changes):
    settings = {
        "epochs": 250,
        "batch_size": 128,
        "lr": 0.1,
        "lr_drop_epochs": (75, 150),
        "lr_drop_factor": 0.1,
        "optimizer": OptimizerSpec(name="sgd"),
        "weight_decay": 1e-4,
        "gradient_clip": None,
        "numerics": "tf32",
    }
    return TrainingSpec(**(settings | changes))


@pytest.mark.parametrize(("epoch", "lr"), [(1, 0.1), (75, 0.1), (76, 0.01), (150, 0.01), (151, 0.001), (250, 0.001)])
def test_the_learning_rate_drops_after_the_drop_epochs(epoch, lr):
    assert learning_rate(epoch, recipe()) == lr


def test_without_drops_the_learning_rate_stays():
    assert learning_rate(200, recipe(lr_drop_epochs=())) == 0.1
