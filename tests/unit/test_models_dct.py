import math

import pytest
import torch
import torch.nn.functional as F

from east.models import build_model
from east.models.dct import DCTConv2d, DCTLinear, dct_kernel, dct_matrix, set_fused
from east.sparse.layers import masked_layers


def slow_dct(o: int, q: int, size: int) -> float:
    return math.sqrt((1 if o == 0 else 2) / size) * math.cos(math.pi * o * (2 * q + 1) / (2 * size))


@pytest.mark.parametrize(("rows", "columns"), [(4, 7), (7, 4), (5, 5)])
def test_the_matrix_is_its_formula(rows, columns):
    expected = [[slow_dct(o, q, max(rows, columns)) for q in range(columns)] for o in range(rows)]
    torch.testing.assert_close(dct_matrix(rows, columns), torch.tensor(expected))


def test_rows_of_wide_and_columns_of_tall_matrices_are_orthonormal():
    wide, tall = dct_matrix(64, 576), dct_matrix(256, 64)
    torch.testing.assert_close(wide @ wide.T, torch.eye(64), rtol=0, atol=1e-5)
    torch.testing.assert_close(tall.T @ tall, torch.eye(64), rtol=0, atol=1e-5)


def test_kernels_read_a_patch_by_row_column_and_channel():
    out_channels, in_channels, size = 5, 2, 3
    kernel = dct_kernel(out_channels, in_channels, size)
    for o in range(out_channels):
        for c in range(in_channels):
            for i in range(size):
                for j in range(size):
                    q = (i * size + j) * in_channels + c
                    assert float(kernel[o, c, i, j]) == pytest.approx(slow_dct(o, q, 18), abs=1e-6)


def test_a_new_layer_is_the_dct_alone():
    layer = DCTConv2d(2, 5, 3, padding=1)
    x = torch.randn(2, 2, 4, 4)
    torch.testing.assert_close(layer(x), F.conv2d(x, dct_kernel(5, 2, 3), padding=1))
    torch.testing.assert_close(DCTConv2d(2, 5, 3)(x), F.conv2d(x, dct_kernel(5, 2, 3)))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(DCTConv2d(3, 6, 3, stride=2, padding=1), (2, 3, 7, 7)), (DCTLinear(6, 4), (3, 6))],
)
def test_fused_and_parallel_execution_agree_in_output_and_gradients(layer, shape):
    torch.manual_seed(0)
    layer = layer.double()
    torch.nn.init.normal_(layer.sparse.weight)
    torch.nn.init.constant_(layer.alpha, 0.7)
    x = torch.randn(shape, dtype=torch.float64)
    results = []
    for fused in (True, False):
        layer.fused = fused
        layer.zero_grad()
        out = layer(x)
        out.square().sum().backward()
        results.append((out.detach(), layer.sparse.weight.grad.clone(), layer.alpha.grad.clone()))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow)


def test_reuse_scales_the_sparse_part_only():
    torch.manual_seed(0)
    layer = DCTConv2d(3, 4, 3, padding=1)
    torch.nn.init.normal_(layer.sparse.weight)
    x = torch.randn(2, 3, 5, 5)
    scale, alpha = torch.tensor(0.3), torch.tensor(1.7)
    expected = F.conv2d(x, 0.3 * layer.sparse.weight + 1.7 * layer.dct.weight, padding=1)
    torch.testing.assert_close(layer.reuse(x, scale, alpha), expected)


def test_every_masked_layer_of_a_dct_network_starts_at_zero_with_its_own_alpha():
    model = build_model("resnet50", 10, dct=True, sharing_ratio=2, width=4)
    layers = masked_layers(model)
    assert len(layers) == 30
    assert all(layer.weight.count_nonzero() == 0 for layer in layers.values())
    alphas = [value for name, value in model.named_parameters() if "alpha" in name]
    assert len(alphas) == 30 + 24
    assert all(alpha.item() == 1 for alpha in alphas)
    assert [name for name, _ in model.named_parameters() if name.endswith("bias") and "bn" not in name][-1] == (
        "classifier.sparse.bias"
    )


def test_the_dct_is_not_stored():
    names = build_model("resnet34", 10, dct=True, width=4).state_dict()
    assert not [name for name in names if "dct" in name]


def test_set_fused_reaches_every_layer():
    torch.manual_seed(0)
    model = build_model("resnet34", 10, dct=True, width=4).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    fused = model(x)
    set_fused(model, False)
    assert not any(module.fused for module in model.modules() if isinstance(module, DCTConv2d | DCTLinear))
    torch.testing.assert_close(model(x), fused)
