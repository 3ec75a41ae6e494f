"""How much of the dense gradients of growth can be left out: `python -m benchmarks.screening`.

Growth wants the largest magnitudes among the off weights of a layer. Between an input channel x and the gradient dz at
an output channel none exceeds the product of the norms of their planes, or the sum of such products over rows. Where
that lies below the least magnitude that grows, the pair of channels need not be computed. Here that magnitude is known;
an engine would have to find it. Where one of the planes is zero nothing need be known, and the engine leaves them out.
"""

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from benchmarks.results import markdown, run_command
from benchmarks.variants import CPU, changed, timed_networks
from east.config.run import CycleSpec, RunSpec
from east.data.digits import native_digits
from east.seeding import torch_generator
from east.sparse.layers import masked_layers
from east.sparse.masks import MaskUpdater
from east.sparse.timetable import MaskUpdate
from east.sparse.topology import fraction_of
from east.training.assembly import assemble, initial_model
from east.training.describe import mask_updater

BATCH, SHORT_BATCH = 128, 4
SIZE, DIGIT_SIZE, CLASSES = 32, 24, 10
EPOCHS = 10
KINDS = ("between planes that are not zero", "by norms of planes", "by norms of rows", "pairs that grow")
"""What is computed: of all pairs of channels, weighted by the work that each is."""


@dataclass(frozen=True)
class Planes:
    """What the dense gradient of a convolution is made of.

    Attributes:
        conv: the convolution, with its dense gradient.
        x: its input, (N, C, H, W).
        dz: the gradient at its output, (N, O, H, W).
    """

    conv: nn.Conv2d
    x: Tensor
    dz: Tensor

    @property
    def work(self) -> int:
        """Multiply-adds for a pair of channels."""
        return self.dz[:, 0].numel() * self.conv.kernel_size[0] ** 2


def planes_of(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Planes]:
    """Those of every masked convolution of a network, in a step of a copy of it."""
    model = copy.deepcopy(model)
    convs = {name: model.get_submodule(name) for name in masked_layers(model)}
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def watch(name: str, conv: nn.Conv2d) -> None:
        def keep(_: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
            found.retain_grad()
            inputs[name], outputs[name] = given[0].detach(), found

        conv.register_forward_hook(keep)

    convolutions = {name: conv for name, conv in convs.items() if isinstance(conv, nn.Conv2d)}
    for name, conv in convolutions.items():
        watch(name, conv)
    torch.autograd.backward(F.cross_entropy(model(images), labels))
    found = {}
    for name, conv in convolutions.items():
        dz = outputs[name].grad
        assert dz is not None
        found[name] = Planes(conv, inputs[name], dz)
    return found


def needed(planes: Planes, off: Tensor, count: int) -> dict[str, Tensor]:
    """Kind -> (O, C) which pairs of channels must be computed so that the `count` largest magnitudes are found.

    `off` are the candidates, in the shape of the weight.
    """
    x, dz, conv = planes.x.transpose(0, 1), planes.dz.transpose(0, 1), planes.conv
    assert conv.weight.grad is not None
    magnitudes = conv.weight.grad.abs()
    least = magnitudes[off].topk(min(count, int(off.sum()))).values.min()
    both = torch.outer(dz.flatten(1).any(1), x.flatten(1).any(1))
    # Rounding: a bound that is met exactly must not exclude.
    least_product = least * (1 - 1e-4)
    of_planes = torch.outer(dz.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    of_rows = _sums_over_rows(dz.norm(dim=3), x.norm(dim=3), conv)
    bounds = (both, both & (of_planes >= least_product), both & (of_rows >= least_product))
    grow = ((magnitudes >= least) & off).flatten(2).any(2)
    return dict(zip(KINDS, (*bounds, grow), strict=True))


def _sums_over_rows(dz: Tensor, x: Tensor, conv: nn.Conv2d) -> Tensor:
    """(O, C) the largest sum of products over kernel rows, from norms (O, N, H) and (C, N, H) of rows."""
    kernel, stride, padding, rows = conv.kernel_size[0], conv.stride[0], int(conv.padding[0]), dz.shape[2]
    padded = F.pad(x, (padding, padding + stride))
    met = (padded[:, :, row : row + stride * rows : stride][:, :, :rows] for row in range(kernel))
    return torch.stack([dz.flatten(1) @ rows_of_x.flatten(1).T for rows_of_x in met]).amax(0)


def count_due(masks: MaskUpdater, update: MaskUpdate, name: str) -> int:
    """How many weights of a layer an update grows."""
    active = int(masks.layers[name].mask.sum())
    if update.kind == "exchange":
        return fraction_of(active, masks.schedule.drop_fraction(update.step))
    return max(0, masks.allocation.counts(update.density)[name] - active)


def shares(masks: MaskUpdater, update: MaskUpdate, found: dict[str, Planes]) -> list[float]:
    """Of each kind, the share of the work that is left, in [0, 1]; in the order of `KINDS`."""
    work: Counter[str] = Counter()
    total = 0
    for name, planes in found.items():
        total += planes.work * planes.dz.shape[1] * planes.x.shape[1]
        count = count_due(masks, update, name)
        if count == 0:
            continue
        for kind, pairs in needed(planes, ~masks.layers[name].mask, count).items():
            work[kind] += planes.work * int(pairs.sum())
    return [work[kind] / total for kind in KINDS]


def training(density: float, multiplier: float, period: int, *, short: bool) -> RunSpec:
    """Of ResNet-34 by RigL: at one density, or in a cosine cycle that rises for half of the steps."""
    spec = timed_networks(short=short)["resnet34"].at(density)
    spec = changed(spec, sparsity={"update_period": period}, training={"epochs": EPOCHS, "lr_drop_epochs": []})
    if multiplier == 1:
        return spec
    cycle = CycleSpec(
        pattern="cosine", multiplier=multiplier, cycles=1, cycle_length=float(EPOCHS), update_period=period
    )
    return spec.model_copy(update={"cycle": cycle})


def batch(number: int, count: int) -> tuple[Tensor, Tensor]:
    """Handwritten digits, enlarged, coloured and moved, with some noise."""
    digits, labels = native_digits()
    draw = torch_generator(number, "cost")
    chosen = torch.randint(len(digits), (count,), generator=draw)
    enlarged = F.interpolate(digits[chosen][:, None].float() / 255, size=DIGIT_SIZE, mode="bilinear")
    images = 0.1 * torch.randn(count, 3, SIZE, SIZE, generator=draw)
    colours = 0.3 + 0.7 * torch.rand(count, 3, 1, 1, generator=draw)
    places = torch.randint(SIZE - DIGIT_SIZE + 1, (count, 2), generator=draw).tolist()
    for image, digit, (top, left) in zip(images, enlarged * colours, places, strict=True):
        image[:, top : top + DIGIT_SIZE, left : left + DIGIT_SIZE] += digit
    return (images - 0.2) / 0.4, labels[chosen]


def main(
    density: Annotated[float, typer.Option(help="Of the network.")] = 0.0005,
    multiplier: Annotated[float, typer.Option(min=1, help="Highest over lowest density; 1: no cycle.")] = 1,
    steps: Annotated[int, typer.Option(min=EPOCHS, help="How long is trained.")] = 120,
    period: Annotated[int, typer.Option(min=1, help="Steps from one mask update to the next.")] = 40,
    short: Annotated[bool, typer.Option(help="A narrow network and few images: it runs, and says nothing.")] = False,
) -> None:
    """Train for some steps, and print what is left of the dense gradients at each update that grows weights."""
    spec = training(density, multiplier, period, short=short)
    model = initial_model(spec, CLASSES)
    masks = mask_updater(model, spec, steps_per_epoch=steps // EPOCHS)
    masks.initialise()
    parts = assemble(spec, model, masks, device=CPU, engine="sparse", kind="eager")
    rows = []
    for step in range(1, steps + 1):
        images, labels = batch(step, SHORT_BATCH if short else BATCH)
        update, grows = masks.timetable.at(step), masks.needs_gradient(step)
        if update is not None and grows:
            left = shares(masks, update, planes_of(model, images, labels))
            rows.append([str(step), f"{update.density:.5f}", *(f"{share:.3f}" for share in left)])
            print(" | ".join(rows[-1]), flush=True)
        parts.step(images, labels, spec.training.lr, step, dense_gradients=grows)
        if masks.update(step, parts.state_of) is not None:
            parts.step.masks_changed()
    print(markdown(["step", "density", *KINDS], rows))


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
