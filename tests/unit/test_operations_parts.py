"""What a configuration may name, with its parameters."""

from east.operations.parts import registered

PARTS = {(part["kind"], part["name"]): part for part in registered()}
NOTHING_MORE = {"meanings": {}, "paper": "", "plugin": None}


def test_networks_have_the_parameters_of_a_model_but_its_name_and_activation():
    assert PARTS["networks", "resnet50"] == {
        "kind": "networks",
        "name": "resnet50",
        "parameters": {"width": 64, "sharing_ratio": None, "dct": False},
        "about": "ResNet-50 with the stem for small images: blocks of 1 x 1, 3 x 3 and 1 x 1 convolutions.",
        "meanings": {"width": "channels of the stem"},
        "paper": "He et al., Deep Residual Learning for Image Recognition, 2016",
        "plugin": None,
        "label": "ResNet-50",
        "module": False,
    }


def test_of_sparsity_rules_have_the_parameters_of_a_mask_update():
    moves = {"drop_fraction": None, "drop_fraction_end": None, "update_period": None, "update_on_last_step": False}
    moves |= {"update_until": 1.0}
    assert PARTS["topologies", "rigl"]["parameters"] == moves
    assert PARTS["topologies", "rigl"]["about"] == "drop magnitude, grow gradient, begin with zero"
    fixed = {"parameters": {}, "about": "the random masks of the start, never changed"}
    assert PARTS["topologies", "fixed"] == {"kind": "topologies", "name": "fixed"} | fixed | NOTHING_MORE


def test_what_its_name_says_has_nothing_beside_it():
    assert PARTS["activations", "dyrelu"] == {
        "kind": "activations",
        "name": "dyrelu",
        "parameters": {},
        "about": "",
        **NOTHING_MORE,
    }


def test_schedules_are_described_by_the_first_line_of_their_documentation():
    cycle = PARTS["cycle patterns", "cosine"]
    assert cycle["parameters"].keys() == {
        *("multiplier", "cycles", "cycle_length", "length_multiplier", "update_period", "end"),
    }
    abouts = [part["about"] for (kind, _), part in PARTS.items() if kind in ("cycle patterns", "learning rates")]
    assert all(about and "\n" not in about for about in abouts)


def test_data_sets_have_their_size_and_how_their_images_are_shown():
    assert "50,000 + 10,000 images of 3 x 32 x 32, 100 classes" in PARTS["data sets", "cifar100"]["about"]
    assert "padding" in PARTS["data sets", "cifar100"]["parameters"]
    assert "name" not in PARTS["data sets", "cifar100"]["parameters"]


def test_an_optimizer_has_the_parameters_that_are_its_own():
    optimizers = {name: part["parameters"] for (kind, name), part in PARTS.items() if kind == "optimizers"}
    assert {name: set(parameters) for name, parameters in optimizers.items()} == {
        "sgd": {"momentum", "nesterov"},
        "adam": {"beta1", "beta2", "epsilon"},
        "adamw": {"beta1", "beta2", "epsilon"},
    }
