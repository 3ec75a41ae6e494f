"""The kernels as compiled: their machine code for an H100, which needs no GPU, and what only a GPU can show."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cuda_reference as reference
import pytest
import torch
from test_cuda_kernels_forward import BLOCKS, ONE_BLOCK, close, norm_of

from east.engine.cuda import forward
from east.engine.graph.network import Window

CASES = ["bf16,64,32,72", "fp32,256,8,128"]
"""Type, channels, height and width, batch: of a ResNet-34 on small images, with the smaller last batch of an epoch."""

SUMS = {"finish_kernel", "finish_statistics_kernel"}
"""Kernels that read sums over parts, and no planes."""

PRODUCTS = {"combine_kernel", "correlate_kernel"}
"""Kernels whose loads go through shared memory to the matrix units, without waiting."""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_planes_are_moved_16_bytes_at_a_time_and_registers_suffice(case, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = Path(__file__).with_name("cuda_offline.py")
    done = subprocess.run([sys.executable, script, case], env=environment, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert len({row["kernel"] for row in rows}) >= 13 - (case == "fp32,256,8,128")
    for row in rows:
        assert row["spills"] == 0, row
        if row["kernel"] in PRODUCTS:
            continue
        # 65,536 registers of a multiprocessor: room for 16 warps at least, so that loads of others hide a wait
        assert row["registers"] * 32 * 16 <= 65536, row
        if row["kernel"] not in SUMS:
            assert row["widths"]["LDG.128"] > 0, row
            assert not row["widths"].keys() & {"LDG.64", "LDG.U16", "STG.U16", "STG.64"}, row


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
def test_an_activation_of_more_numbers_than_32_bits_count(device):
    shape = (5, 128, 128, 2**15)
    z = torch.ones(shape, dtype=torch.bfloat16, device=device)
    z[-1] = 2
    _, norm = norm_of(shape, torch.bfloat16, device)
    forward.normalise(z, norm, training=True)
    torch.testing.assert_close(norm.mean, torch.tensor([1.0, 1, 1, 1, 2], device=device))


@needs_gpu
@pytest.mark.parametrize("shape", [ONE_BLOCK, BLOCKS], ids=str)
def test_a_captured_convolution_follows_its_lists(shape, device):
    dtype, window = torch.float32, Window(3, 1, 1)
    weights = [reference.sparse_weight((4, shape[0], 3, 3), count, count, dtype, device) for count in (9, 14)]
    (lists, values), (new_lists, new_values) = (reference.lists_of(weight, 20, "output") for weight in weights)
    source = reference.random_source(shape, dtype, device, pending=True, rectify=True, seed=2)
    z = torch.zeros((4, *shape[1:]), device=device)
    _, norm = norm_of(z.shape, dtype, device)

    def step():
        z.zero_()
        forward.convolve(source, lists, values, window, z, norm, training=True)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for name in ("start", "channel", "tap", "place"):
        getattr(lists, name).copy_(getattr(new_lists, name))
    values.copy_(new_values)
    graph.replay()
    close(z, reference.convolve(reference.activation(source), weights[1], window), dtype)
