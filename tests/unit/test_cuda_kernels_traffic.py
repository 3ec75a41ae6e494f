"""The table of bytes against what Triton's interpreter is asked for."""

import cuda_reference as reference
import pytest
import torch
from test_cuda_kernels_backward import case_of, consumers_of, planes
from test_cuda_kernels_forward import norm_of, poisoned
from triton.runtime.interpreter import InterpreterBuilder

from east.engine.cuda import backward, dyrelu, forward, traffic
from east.engine.cuda.lists import Geometry, Source

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="counts what the interpreter does"),
    pytest.mark.parametrize("shape", [(4, 5, 7, 3), (3, 9, 10, 100)], ids=str),
]
DTYPE = torch.bfloat16
POINT = Geometry(1, 1, 0)


@pytest.fixture
def moved(monkeypatch):
    """Bytes of bf16, the planes, that have been read and written."""
    counted = {"read": 0, "written": 0}

    def counting(name, direction):
        original = getattr(InterpreterBuilder, name)

        def method(self, pointers, *rest):
            mask = rest[0] if direction == "read" else rest[1]
            if pointers.get_element_ty().primitive_bitwidth == 16:
                counted[direction] += 2 * int(mask.data.sum())
            return original(self, pointers, *rest)

        monkeypatch.setattr(InterpreterBuilder, name, method)

    counting("create_masked_load", "read")
    counting("create_masked_store", "written")
    return counted


def check(moved, launches):
    kernels = {"convolve", "gather", "apply_gradient", "finish_block", "value_products", "statistics"}
    kernels |= {"finish_input", "apply", "gradient_of_coefficients", "gradient_of_input"}
    # What is not bf16 are parts, which are written once and read once, and only those.
    parts = sum(launch.read for launch in launches if launch.kernel not in kernels)
    assert sum(launch.read for launch in launches) == moved["read"] + parts
    assert sum(launch.written for launch in launches if launch.kernel in kernels) == moved["written"] + parts


def test_forward(shape, device, moved):
    weight = reference.sparse_weight((4, shape[0], 1, 1), 6, 1, DTYPE, device)
    lists, values = reference.lists_of(weight, 12, "output")
    z = poisoned((4, *shape[1:]), DTYPE, device)
    _, norm = norm_of(z.shape, DTYPE, device)
    source = Source(planes(shape, DTYPE, device, 2))
    forward.convolve(source, lists, values, POINT, z, norm, training=True)
    stored, nonzeros = int((lists.start.diff() > 0).sum()), int(lists.start[-1])
    launches = traffic.convolve(z.shape, DTYPE, nonzeros, stored)
    forward.finish_block(Source(z, norm.scale, norm.shift, True, lists.start), Source(z), torch.empty_like(z), True)
    launches += traffic.finish_block(z.shape, DTYPE, stored, 4)
    products, gradient = torch.empty(12, 500), torch.empty(12)
    backward.value_gradients(source, lists, POINT, z, products, gradient)
    launches += traffic.value_gradients(z.shape, DTYPE, nonzeros, stored)
    forward.normalise(z, norm, training=True)
    launches += traffic.normalise(z.shape, DTYPE)
    check(moved, launches)


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_backward(residual, everything, shape, device, moved):
    case = case_of(shape, DTYPE, device, rectify=True, residual=residual)
    case.output.norm.shift.fill_(1)  # no constant channel is 0, where nothing is read
    consumers, _, _ = consumers_of(case.y, [POINT], DTYPE, device)
    direct = planes(shape, DTYPE, device, 40) if residual else None
    g, dz = torch.empty_like(case.output.z), torch.empty_like(case.output.z)
    options = {"keep": residual, "everything": everything}
    backward.through_unit(case.output, consumers, direct, g, dz, training=True, **options)
    starts = consumers[0].lists.start.diff() > 0
    reach = torch.ones_like(starts) if residual else starts
    readers = [traffic.Reader(int(consumers[0].lists.start[-1]), consumers[0].dz.shape)]
    launches = traffic.through_unit(
        shape,
        DTYPE,
        int(case.written.sum()),
        readers,
        read=int(reach.sum()),
        live=int((reach & case.written).sum()),
        direct=residual,
        activation=residual,
        rectify=True,
        **options,
    )
    backward.gather(planes(shape, DTYPE, device, 41), consumers, direct, dz)
    launches += traffic.gather(shape, DTYPE, readers, read=int(reach.sum()), direct=residual)
    check(moved, launches)


def test_dyrelu(shape, device, moved):
    case = case_of(shape, DTYPE, device, rectify=False, residual=False)
    stored = int(case.written.sum())
    u, dy, g = (planes(shape, DTYPE, device, seed) for seed in range(3))
    coefficients, means = torch.zeros(shape[0], 4, shape[3]), torch.zeros(shape[0], shape[3])
    norm, output = case.output.norm, case.output
    source = Source(output.z, norm.scale, norm.shift, False, output.stored)
    dyrelu.finish_input(source, None, u, means)
    dyrelu.apply(u, coefficients, g)
    dyrelu.gradient_of_coefficients(u, coefficients, dy, coefficients)
    dyrelu.gradient_of_input(u, coefficients, dy, means, output.z, output.stored, norm, g)
    backward.through_norm(output, g, torch.empty_like(g), everything=False, training=True)
    check(
        moved,
        [
            *traffic.finish_input(shape, DTYPE, stored),
            *traffic.apply(shape, DTYPE),
            *traffic.gradient_of_coefficients(shape, DTYPE),
            *traffic.gradient_of_input(shape, DTYPE, stored),
            *traffic.through_norm(shape, DTYPE, stored, everything=False),
        ],
    )
