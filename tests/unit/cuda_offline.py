"""Compiles the kernels for an H100 without one, as networks of real sizes launch them; prints a row each as JSON.

Run by a process of its own, without Triton's interpreter: python tests/unit/cuda_offline.py
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import triton
from torch import nn
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from east.engine.cuda import backward, dyrelu, forward
from east.engine.cuda.operands import Consumer, Norm, Output, Source
from east.engine.cuda.sketch import sketched
from east.engine.cuda.tiles import accumulation_type, parts_of
from east.engine.graph.index import Grouped
from east.engine.graph.network import Window

H100 = GPUTarget("cuda", 90, 32)
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
META = torch.device("meta")


class NoDevice:
    """What a launch asks a driver, answered for a device that is not there."""

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return H100


def examine(binary):
    """Registers, bytes of spills, and how many loads and stores of each width are in the machine code."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(binary)
        usage = subprocess.run([TOOL, "-res-usage", path], capture_output=True, text=True, check=True).stdout
        code = subprocess.run([TOOL, "-sass", path], capture_output=True, text=True, check=True).stdout
    numbers = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    widths = {}
    for kind, width in re.findall(r"\b(LDG|STG)\.E(?:\.[A-Z]+(?=\.|\s))*(?:\.(64|128|U8|U16|S16))?", code):
        name = f"{kind}.{width or 32}"
        widths[name] = widths.get(name, 0) + 1
    spills = len(re.findall(r"\b(?:LDL|STL)\b", code))
    return {"registers": int(numbers["REG"]), "spills": spills + int(numbers["LOCAL"]), "widths": widths}


class Compiler:
    """Takes the place of a launch: compiles the kernel, and remembers what came of it."""

    def __init__(self):
        self.rows = {}
        self.variant = ""

    def __call__(self, *, fn, key, **rest):
        compiled = rest["compile"]
        row = (self.variant, fn.name.rpartition(".")[2])
        if (*row, key) not in self.rows:
            source = ASTSource(fn.jit_function, compiled["signature"], compiled["constants"], compiled["configs"][0])
            options = {"num_warps": compiled["num_warps"]}
            kernel = triton.compile(source, target=H100, options=options)
            found = examine(kernel.asm["cubin"])
            self.rows[*row, key] = {"launch": row[0], "kernel": row[1], "warps": compiled["num_warps"], **found}
        return True


def lists_of(groups, capacity=100):
    vectors = [torch.empty(size, dtype=torch.int32, device=META) for size in (groups + 1, *[capacity] * 3)]
    return Grouped(*vectors)


def launch_everything(compiler, channels, size, batch, dtype):
    """Every kernel as units with planes (channels, size, size, batch) launch it, in training."""
    shape, own = (channels, size, size, batch), accumulation_type(dtype)

    def planes(*sizes):
        return torch.empty(sizes or shape, dtype=dtype, device=META)

    def numbers(*sizes):
        return torch.empty(sizes, dtype=own, device=META)

    norm = Norm.of(nn.BatchNorm2d(channels, device=META, dtype=own), shape, dtype)
    lists, values, three = lists_of(channels), numbers(100), Window(3, 1, 1)
    pending = Source(planes(), norm.scale, norm.shift, True, lists.start)
    normalised = Source(planes(), norm.scale, norm.shift, False, lists.start)
    products, gradient = numbers(100, parts_of(shape, dtype)), numbers(100)
    consumer = Consumer(lists, values, three, planes(), products, gradient)
    half = planes(channels, size // 2, size // 2, batch)
    downsampling = [
        Consumer(lists, values, Window(kernel, 2, kernel // 2), half, products, gradient) for kernel in (3, 1)
    ]
    inner = Output(planes(), lists.start, norm, True)
    last = Output(planes(), lists.start, norm, True, planes())
    shortcut = Output(planes(), lists.start, norm, False)
    options = {"everything": False, "training": True}

    def through(name, output, consumers, direct, keep):
        compiler.variant = name
        backward.through_unit(output, consumers, direct, planes(), planes(), keep=keep, **options)

    compiler.variant = "convolve: inner"
    forward.convolve(pending, lists, values, three, planes(), norm, True)
    compiler.variant = "convolve: stored input"
    forward.convolve(Source(planes()), lists, values, three, planes(), norm, True)
    compiler.variant = "convolve: stride 2"
    larger = Source(planes(channels, 2 * size, 2 * size, batch))
    forward.convolve(larger, lists, values, Window(3, 2, 1), planes(), norm, True)
    compiler.variant = "normalise"
    forward.normalise(planes(), norm, True)
    compiler.variant = "block: stored residual"
    forward.finish_block(normalised, Source(planes()), planes(), True)
    compiler.variant = "block: shortcut"
    forward.finish_block(normalised, normalised, planes(), True)
    through("backward: inner", inner, [consumer], None, False)
    through("backward: block", last, [consumer], planes(), True)
    through("backward: block before downsampling", last, downsampling, None, True)
    through("backward: shortcut", shortcut, (), planes(), False)
    compiler.variant = "gather"
    backward.gather(planes(), [consumer], planes(), planes())
    compiler.variant = "value gradients"
    backward.value_gradients(Source(planes(3, size, size, batch)), lists, three, planes(), products, gradient)
    compiler.variant = "sketch"
    sketched(pending, planes(), numbers(1, channels), three)
    compiler.variant = "dyrelu"
    coefficients = numbers(channels, 4, batch)
    means = numbers(channels, batch)
    dyrelu.finish_input(normalised, Source(planes()), planes(), means)
    dyrelu.apply(planes(), coefficients, planes())
    dyrelu.gradient_of_coefficients(planes(), coefficients, planes(), coefficients)
    dyrelu.gradient_of_input(planes(), coefficients, planes(), means, planes(), lists.start, norm, planes())
    backward.through_norm(last, planes(), planes(), **options)


def main():
    compiler = Compiler()
    triton.runtime.driver.set_active(NoDevice())
    knobs.runtime.jit_cache_hook = compiler
    names = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}
    rows = []
    for case in sys.argv[1:]:
        name, *sizes = case.split(",")
        compiler.rows = {}
        launch_everything(compiler, *map(int, sizes), names[name])
        rows += [{"case": case, **row} for row in compiler.rows.values()]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
