"""The registries of what a method is made of, and of what is claimed of it: each is the decorator that adds to it."""

from typing import Literal

from east.registry import Facts, Kind


class RuleFacts(Facts):
    """What a rule of mask updates declares.

    Attributes:
        gradient: at which steps it looks at the dense gradient, which costs most of an update: `never`, at those of
            mask `updates`, or at all `steps`, each of which is then about as dear as a dense one.
        across_layers: whether its scores are compared over all layers, so that these exchange weights with each other.
    """

    gradient: Literal["never", "updates", "steps"] = "never"
    across_layers: bool = False


class OptimizerFacts(Facts):
    """What an optimizer declares.

    Attributes:
        state: names of the numbers that it keeps of each weight; they begin at zero.
        counts_steps: whether it wants to know how many steps each parameter has made.
    """

    state: tuple[str, ...] = ()
    counts_steps: bool = False


class NetworkFacts(Facts):
    """What a network declares.

    Attributes:
        label: how tables and figures call it; its name by default.
        module: whether it is an ordinary `nn.Module`, which PyTorch executes with all its weights, in place of a
            description.
    """

    label: str = ""
    module: bool = False


distribution = Kind(
    "distributions",
    "distribution",
    "distributions",
    home="east.sparse.distribution",
    takes=("shapes", "total"),
    gives="a number of non-zeros for each name of `shapes`, `total` together",
)
cycle_pattern = Kind(
    "cycle patterns",
    "cycle pattern",
    "cycles",
    home="east.sparse.density",
    takes=("position",),
    gives="a height in [0, 1], which is 0 at both ends of the cycle",
)
density_schedule = Kind(
    "density schedules",
    "density schedule",
    "density",
    home="east.sparse.density",
    takes=("moment", "target"),
    gives="a density in (0, 1], which in the end is `target`",
)
drop_rule = Kind(
    "drop rules",
    "drop rule",
    "drop",
    home="east.sparse.drop",
    takes=("layer",),
    gives="a score for each weight, in the layer's shape, of which the largest stay; or a mask of as many as stay",
    facts=RuleFacts,
)
growth_rule = Kind(
    "growth rules",
    "growth rule",
    "growth",
    home="east.sparse.growth",
    takes=("layer",),
    gives="a score for each weight, in the layer's shape, of which the largest grow; or a mask of as many as grow",
    facts=RuleFacts,
)
initial_values = Kind(
    "initial values",
    "rule for initial values",
    "initial",
    home="east.sparse.initial",
    takes=("layer",),
    gives="a value for each weight, in the layer's shape",
    facts=RuleFacts,
)
optimizer = Kind(
    "optimizers",
    "optimizer",
    "optimizers",
    home="east.sparse.optimizers",
    takes=("step",),
    gives="nothing: it changes values and state in place",
    facts=OptimizerFacts,
)
learning_rate = Kind(
    "learning rates",
    "learning-rate schedule",
    "rates",
    home="east.sparse.rates",
    takes=("moment", "lr"),
    gives="a learning rate, at least 0",
)
network = Kind(
    "networks",
    "network",
    "networks",
    home="east.models.networks",
    takes=("images", "classes"),
    gives="the logits: what `.linear(classes)` makes of a feature; with `module=True` an nn.Module",
    facts=NetworkFacts,
)
claim_form = Kind(
    "claim forms",
    "claim form",
    "claims",
    home="east.analysis.claim_forms",
    takes=("rows",),
    gives="a frame with the columns `higher` and `lower`, which hold labels of the index of `rows`, two for each pair, "
    "and `margin`, if a pair must differ by more than 0 points",
)

KINDS: dict[str, Kind] = {
    "network": network,
    "distribution": distribution,
    "cycle_pattern": cycle_pattern,
    "density_schedule": density_schedule,
    "drop_rule": drop_rule,
    "growth_rule": growth_rule,
    "initial_values": initial_values,
    "optimizer": optimizer,
    "learning_rate": learning_rate,
    "claim_form": claim_form,
}
"""Name of a decorator -> its registry."""
