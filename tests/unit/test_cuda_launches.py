"""Which kernels a step launches on a GPU and how its work is cut, as committed: nothing of it follows from data.

`python -m tests.unit.test_cuda_launches` writes `views/launches.txt` again; read the difference.
"""

from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest
import torch

from east.engine import CrossEntropy, GradientRequest
from east.engine.cuda.engine import CudaEngine
from east.engine.cuda.kernels import backward, dyrelu, forward, sketch
from east.engine.cuda.tiles import PositionTiling, Tiling, power_of_two, tiling, warps_of
from east.models.described import Parts
from east.models.networks import BASIC, BOTTLENECK
from east.sparse.active import active_weights
from east.sparse.layers import masked_layers
from east.sparse.masks import initialise_masks
from tests.unit.residual_networks import residual_network
from tests.unit.sparse_engines import GPU, gpu_mixed

VIEW = Path(__file__).with_name("views") / "launches.txt"


def everything(signs):
    return GradientRequest(True, signs)


def nothing_more(signs):
    return GradientRequest()


CASES = {
    "planes of several blocks": {
        "images": (40, 16),
        "blocks": (1, 1),
        "width": 2,
        "requests": (nothing_more, everything),
    },
    "planes of one block, by bfloat16": {"images": (3, 5), "blocks": (1,), "width": 4, "numerics": "bf16"},
    "a max-pool and DyReLU, in double": {
        "images": (130, 9),
        "blocks": (1,),
        "width": 2,
        "dynamic": True,
        "dtype": torch.float64,
        "max_pool": True,
        "stem_kernel": 7,
        "stem_stride": 2,
    },
    "shared and dense layers": {
        "images": (2, 4),
        "design": BOTTLENECK,
        "blocks": (3,),
        "width": 1,
        "sharing_ratio": 2,
        "choose": gpu_mixed,
    },
    "many channels": {"images": (16, 2), "blocks": (1,), "width": 70},
}
"""Of images: how many, and how large."""


class Launches:
    """Stands for a kernel that is launched, and does nothing but to write down what it was given.

    Memory has a number, in the order in which it is first seen.
    """

    def __init__(self, name, lines, seen):
        self.name, self.lines, self.seen = name, lines, seen

    def memory(self, tensor):
        # Whoever is seen is held, so that nobody else gets the same memory.
        return self.seen.setdefault(tensor.data_ptr(), (len(self.seen), tensor))[0]

    def __getitem__(self, grid):
        def launch(**arguments):
            by_name = sorted(arguments.items())
            tensors = {name: self.memory(value) for name, value in by_name if isinstance(value, torch.Tensor)}
            told = [f"{name}={value}" for name, value in by_name if value is not None and name not in tensors]
            places = [f"{name}:{place}" for name, place in tensors.items()]
            self.lines.append(f"{self.name}{list(grid)} {' '.join(told)}; {' '.join(places)}")

        return launch


def launches_of(
    images,
    *,
    design=BASIC,
    blocks,
    dynamic=False,
    numerics="fp32",
    dtype=torch.float32,
    choose=None,
    requests=(everything,),
    **parts,
):
    torch.manual_seed(0)
    model = residual_network(design, blocks, 10, parts=Parts(dct=False, dyrelu=dynamic), **parts).to(GPU, dtype)
    layers = masked_layers(model)
    initialise_masks(layers, {name: max(1, layer.weight.numel() // 8) for name, layer in layers.items()}, seed=0)
    room = {name: layer.weight.numel() // 4 for name, layer in layers.items()}
    choose = choose or (lambda network, nonzeros: dict.fromkeys(nonzeros, "fused"))
    engine = CudaEngine(model, active_weights(layers, room), numerics=numerics, device=GPU, choose=choose)
    count, size = images
    batch = torch.randn(count, 3, size, size, dtype=dtype, device=GPU)
    signs = {name: torch.ones(2, len(layer.weight), device=GPU) for name, layer in layers.items()}
    labels = torch.zeros(count, dtype=torch.int64, device=GPU)
    lines, seen = [], {}
    with ExitStack() as patched:
        for module in (forward, backward, dyrelu, sketch):
            for name in vars(module):
                if name.endswith("_kernel"):
                    patched.enter_context(mock.patch.object(module, name, Launches(name, lines, seen)))
        for request in requests:
            lines.append("step")
            engine.gradients(batch, CrossEntropy(labels), request(signs))
        lines.append("evaluation")
        model.eval()
        engine(batch)
    return lines


def all_launches():
    return "".join(
        f"{name}\n" + "".join(f"  {line}\n" for line in launches_of(**case)) + "\n" for name, case in CASES.items()
    )


@pytest.mark.usefixtures("one_thread")
def test_each_kernel_is_launched_as_its_work_is_cut():
    assert all_launches() == VIEW.read_text()


# The cuts themselves, for shapes of the paper's networks


@pytest.mark.parametrize(
    ("shape", "dtype", "cut", "warps"),
    [
        ((64, 32, 32, 128), torch.float32, Tiling(128, 32, 1024, 16, 64), 4),
        ((64, 32, 32, 128), torch.bfloat16, Tiling(256, 16, 512, 8, 64), 4),
        ((64, 32, 32, 128), torch.float64, Tiling(64, 64, 2048, 32, 64), 4),
        ((512, 4, 4, 128), torch.float32, Tiling(128, 4, 16, 16, 1), 4),
        ((256, 8, 8, 128), torch.float32, Tiling(128, 8, 64, 64, 1), 16),
        ((256, 8, 8, 129), torch.float32, Tiling(128, 9, 72, 16, 5), 4),
        ((1, 1, 1, 1), torch.float32, Tiling(1, 1, 1, 1, 1), 1),
        ((3, 5, 5, 3), torch.float32, Tiling(16, 1, 5, 8, 1), 1),
    ],
)
def test_a_plane_is_cut_into_segments_of_its_rows(shape, dtype, cut, warps):
    assert tiling(shape, dtype) == cut
    assert cut.warps == warps


@pytest.mark.parametrize(
    ("shape", "cut", "warps"),
    [
        ((64, 32, 32, 128), PositionTiling(1024, 16, 128, 64, 64), 4),
        ((64, 32, 32, 130), PositionTiling(1024, 16, 128, 64, 128), 4),
        ((512, 4, 4, 3), PositionTiling(16, 16, 4, 1, 1), 1),
        ((2, 5, 7, 1), PositionTiling(35, 64, 1, 1, 1), 1),
    ],
)
def test_a_plane_is_cut_by_positions_and_images(shape, cut, warps):
    assert PositionTiling.of(shape) == cut
    assert cut.warps == warps


def test_programs_have_a_warp_for_every_512_numbers_and_at_most_16():
    assert [warps_of(numbers) for numbers in (1, 512, 1024, 2048, 8192, 16384)] == [1, 1, 2, 4, 16, 16]
    assert [power_of_two(number) for number in (1, 2, 3, 4, 5, 1000)] == [1, 2, 4, 4, 8, 1024]


if __name__ == "__main__":
    VIEW.write_text(all_launches())
