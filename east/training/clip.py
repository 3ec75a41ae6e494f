"""The gradient clip: a global norm, exact or estimated by random projections, and the gradients scaled down to it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from east.config.run import ClipSpec
from east.data.batches import staged
from east.engine import Arithmetic, GradientRequest
from east.seeding import generator
from east.sparse.active import ActiveWeights

EPSILON = 1e-6
"""Added to the norm before dividing by it, as PyTorch does."""


class GradientClip:
    """Scales all gradients down to a global norm of at most `spec.norm`.

    The default norm runs over every gradient, off weights included: it is 60 to 180 times the norm over active
    weights, so the scope is part of the method. For the estimator `sketch`, an engine contracts the dense gradients
    with random signs instead of computing them; parameters that are not masked count exactly.

    The norm and the signs have the same memory at every step, and nothing waits for the device.

    The signs depend on seed and step.
    """

    def __init__(self, spec: ClipSpec, active: Mapping[str, ActiveWeights], seed: int, arithmetic: Arithmetic) -> None:
        self._arithmetic = arithmetic
        self._spec = spec
        self._active = active
        self._seed = seed
        self._device = next((weights.layer.weight.device for weights in active.values()), torch.device("cpu"))
        self._norm = torch.zeros((), dtype=torch.float64, device=self._device)
        self._sizes = [spec.probes * weights.layer.weight.shape[0] for weights in active.values()]
        self._all_signs = torch.empty(sum(self._sizes), device=self._device)

    def measures(self, step: int) -> bool:
        """Whether the norm is measured at step `step` (counted from 1)."""
        return (step - 1) % self._spec.every == 0

    def request(self, step: int, *, dense: bool) -> GradientRequest:
        """What the norm of step `step` (counted from 1) needs of the engine; signs hold until the next request.

        `dense`: whether dense gradients are needed anyway.
        """
        if not self.measures(step) or self._spec.scope == "active":
            return GradientRequest(dense)
        if self._spec.estimator == "exact":
            return GradientRequest(dense=True)
        # Signs (probes, out) for each masked layer, all of one draw.
        drawn = generator(self._seed, "sketch", step).signs(len(self._all_signs))
        self._all_signs.copy_(staged(drawn, self._device), non_blocking=True)
        parts = torch.split(self._all_signs, self._sizes)
        layers = zip(self._active, parts, strict=True)
        return GradientRequest(dense, {name: signs.view(self._spec.probes, -1) for name, signs in layers})

    def apply(self, step: int, plain: Sequence[Tensor], squared_norms: Tensor | None) -> None:
        """Scale the gradients of one step in place.

        Those of masked weights are scaled in `ActiveWeights.gradient`. Dense ones stay as they are, except where the
        former is a view of them: within a tensor scaling changes no ranking, so growth sees the same order either way.

        `plain` are the gradients of parameters that are not masked; `squared_norms` is what the engine returned for
        `request(step)`.
        """
        active = [weights.gradient for weights in self._active.values() if weights.gradient is not None]
        if self.measures(step):
            masked: Sequence[Tensor] = []
            if self._spec.scope == "active":
                masked = active
            elif self._spec.estimator == "exact":
                dense = (weights.layer.weight.grad for weights in self._active.values())
                masked = [gradient for gradient in dense if gradient is not None]
            squared = self._arithmetic.sum_of_squares([*plain, *masked])
            if squared_norms is not None:
                squared = squared + self._arithmetic.mean(squared_norms)
            self._norm.copy_(self._arithmetic.square_root(squared))
        scaled = [*plain, *active]
        scale = (self._spec.norm / (self._norm + EPSILON)).clamp(max=1.0)
        torch._foreach_mul_(scaled, scale.to(scaled[0]))

    def state_dict(self) -> dict[str, Tensor]:
        """The norm that was measured last: steps between measurements use it."""
        return {"norm": self._norm}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Take over the state that `state_dict` gave."""
        self._norm.copy_(saved["norm"])
