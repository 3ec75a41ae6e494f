"""Records the calls of the compiled kernels in this process on a tape, which player.cpp plays on any processor.

A tape has the memory that kernels are told of, the calls with their structures, and checksums of what each call
changed. Memory is written once, and again only where Python changed it between two calls: everything else a call reads
is what the calls before it have left on the processor that plays.
"""

import ctypes
import struct
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ctypes import Array, Structure, c_void_p
from dataclasses import dataclass, field
from operator import attrgetter
from typing import BinaryIO
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from east.engine.cpu import bindings as kernels

WORD = 4
"""Bytes of the numbers that memory is compared by."""

POISON = 0x7FC00000
"""What memory holds that nothing has written: as a float, the NaN that PyTorch fills new tensors with when asked to."""

GAP = 512
"""Words between two changes of memory that become one on the tape, if all of them are known."""

STEP, REGION, WRITE, POINTERS, CALL, COMPARE = range(6)
"""The kinds of events; each begins with its kind."""

POINTER_LISTS = {
    kernels.SumOfSquares: ("vectors", ("vectors.at",)),
    kernels.SgdStep: ("values", ("values.at", "gradients", "momenta")),
    kernels.AdamStep: ("values", ("values.at", "gradients", "means", "mean_squares")),
}
"""The structures with fields that point to lists of pointers: where the lists' lengths stand, and these fields."""


@dataclass(eq=False)
class Region:
    """A piece of memory that pointers lead to.

    Attributes:
        number: its name on the tape.
        begin: its address.
        size: its bytes.
        content: what it holds on a processor that plays the tape, in words.
        known: which words were ever written.
        tensor: the tensor whose memory it is. While it is held here, no other one gets that memory.
    """

    number: int
    begin: int
    size: int
    content: np.ndarray = field(init=False)
    known: np.ndarray = field(init=False)
    tensor: Tensor | None = None

    def __post_init__(self) -> None:
        words = -(-self.size // WORD)
        self.content = np.full(words, POISON, np.uint32)
        self.known = np.zeros(words, bool)

    def overlaps(self, begin: int, size: int) -> bool:
        """Whether any of `size` bytes from an address on is in it."""
        return self.begin < begin + size and begin < self.begin + self.size

    def changes(self) -> list[tuple[int, int]]:
        """Take over what is in memory; returns what that changed, as (first word, words)."""
        now = np.zeros(len(self.content), np.uint32)
        ctypes.memmove(now.ctypes.data, self.begin, self.size)
        changed = np.flatnonzero(now != self.content)
        self.known[changed] = True
        self.content = now
        pieces = []
        for piece in np.split(changed, np.flatnonzero(np.diff(changed) > GAP) + 1):
            if len(piece):
                pieces += [
                    (int(piece[0]) + first, count) for first, count in runs(self.known[piece[0] : piece[-1] + 1])
                ]
        return pieces


Place = tuple[Region, int]
"""A region and the offset of a byte in it."""

WHOLE = (ctypes.c_int32, ctypes.c_int64)
"""The types of the sizes in structures."""


def runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """The stretches of marks that are set, as (first, count)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], marks.astype(np.int8), [0]))))
    return [(int(first), int(end - first)) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def checksum(words: np.ndarray) -> int:
    """A 64-bit checksum of words (uint32) that depends on the place of each; player.cpp has the same."""
    factors = np.uint64(0x9E3779B97F4A7C15) + np.arange(len(words), dtype=np.uint64) * np.uint64(0x3C6EF372FE94F82A)
    mixed = (words.astype(np.uint64) + np.uint64(1)) * factors
    return int((mixed ^ (mixed >> np.uint64(31))).sum(dtype=np.uint64))


class Recorder:
    """Writes a tape.

    Args:
        file: what it is written to.

    Attributes:
        names: the kernels that were called, with the type of number.
        calls: how many calls there are.
        written, computed: words that stand on the tape, and words that calls changed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._regions: dict[int, Region] = {}  # by address; none overlaps another
        self._begins: list[int] = []  # their addresses in order
        self._made = 0
        self.names: set[str] = set()
        self.calls = self.written = self.computed = 0
        self._put("east tape 1")

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record all kernels that run until the block ends; new tensors are filled with `POISON`."""
        run = kernels.KernelSet.__call__

        def call(kernel_set: kernels.KernelSet, name: str, arguments: Structure) -> None:
            self._call(kernel_set.function(name), arguments, lambda: run(kernel_set, name, arguments))

        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            with patch.object(kernels.KernelSet, "__call__", call), patch.object(kernels, "address", self._address):
                yield
        finally:
            torch.use_deterministic_algorithms(before)

    def begin(self, step: str) -> None:
        """Begin a step, which the player names when something differs."""
        self._put(STEP, step)

    def compare_everything(self) -> None:
        """Compare all memory that is known: after a call, only what had changed there is compared."""
        compared = [(region, *run, "memory") for region in self._regions.values() for run in runs(region.known)]
        self._put(COMPARE)
        self._put_checksums(compared)

    def _address(self, tensor: Tensor | None) -> int | None:
        """In place of `kernels.address`."""
        if tensor is None:
            return None
        storage = tensor.untyped_storage()
        if storage.nbytes():
            self._region(storage.data_ptr(), storage.nbytes()).tensor = tensor.detach()
        return tensor.data_ptr()

    def _region(self, begin: int, size: int) -> Region:
        """The region with these bytes; a new one takes the place of those whose memory was freed in the meantime."""
        first = max(bisect_right(self._begins, begin) - 1, 0)
        last = bisect_left(self._begins, begin + size)
        around = [region for at in self._begins[first:last] if (region := self._regions[at]).overlaps(begin, size)]
        for region in around:
            if (region.begin, region.size) == (begin, size) or region.tensor is not None:
                return region
        for region in around:
            del self._regions[region.begin]
            self._begins.remove(region.begin)
        insort(self._begins, begin)
        region = self._regions[begin] = Region(self._made, begin, size)
        self._made += 1
        self._put(REGION, region.number, len(region.content) * WORD)
        return region

    def _place(self, pointer: int) -> Place:
        before = bisect_right(self._begins, pointer)
        region = self._regions[self._begins[before - 1]] if before else None
        if region is not None and region.overlaps(pointer, 1):
            return region, pointer - region.begin
        raise ValueError(f"nothing is known of the memory at {pointer:#x}")

    def _call(self, name: str, arguments: Structure, run: Callable[[], None]) -> None:
        """Record a call and make it."""
        pointers = {path: (offset, self._place(pointer)) for path, offset, pointer in _pointers(arguments)}
        lists = self._lists(arguments, 8 if name.endswith("f64") else 4)
        names = {place: path for path, (_, place) in pointers.items()}
        names |= {place: f"{path}[{i}]" for path, (_, targets) in lists.items() for i, place in enumerate(targets)}
        of_pointers = {list_region for (list_region, _), _ in lists.values()}
        regions = {region.number: region for region, _ in names if region not in of_pointers}.values()
        self._catch_up(regions)
        for (region, offset), targets in lists.values():
            self._put(POINTERS, region.number, offset, len(targets))
            for target, target_offset in targets:
                self._put(target.number, target_offset)
        self._put(CALL, name, _in_words(arguments), ctypes.sizeof(arguments))
        self._file.write(bytes(arguments))
        self._put(len(pointers))
        for offset, (region, place) in pointers.values():
            self._put(offset, region.number, place)
        run()
        self.calls += 1
        self.names.add(name)
        changed = [(region, *change) for region in regions for change in region.changes()]
        self.computed += sum(count for _, _, count in changed)
        self._put_checksums([(*change, _nearest(names, *change[:2])) for change in changed])

    def _catch_up(self, regions: Iterable[Region]) -> None:
        """Write what Python has changed since the last call."""
        for region in regions:
            for first, count in region.changes():
                self._put(WRITE, region.number, first * WORD, count * WORD)
                self._file.write(region.content[first : first + count].tobytes())
                self.written += count

    def _lists(self, arguments: Structure, item: int) -> dict[str, tuple[Place, list[Place]]]:
        """By field: where a list of pointers stands, and where each leads."""
        if type(arguments) not in POINTER_LISTS:
            return {}
        vectors, paths = POINTER_LISTS[type(arguments)]
        count, at = (attrgetter(f"{vectors}.{name}")(arguments) for name in ("count", "lengths"))
        lengths = list((ctypes.c_int64 * count).from_address(at))
        found = {}
        for path in paths:
            begin = attrgetter(path)(arguments)
            targets = list((ctypes.c_int64 * count).from_address(begin))
            # A vector without elements has no memory; its pointer leads nowhere.
            places = [
                self._place_of(target, length * item) if length else self._place(begin)
                for target, length in zip(targets, lengths, strict=True)
            ]
            found[path] = (self._place(begin), places)
        return found

    def _place_of(self, pointer: int, size: int) -> Place:
        region = self._region(pointer, size)
        return region, pointer - region.begin

    def _put_checksums(self, pieces: list[tuple[Region, int, int, str]]) -> None:
        self._put(len(pieces))
        for region, first, count, name in pieces:
            self._put(region.number, first * WORD, count * WORD, checksum(region.content[first : first + count]), name)

    def _put(self, *values: int | str) -> None:
        """Numbers of 8 bytes, and texts behind their length."""
        for value in values:
            if isinstance(value, str):
                self._file.write(struct.pack("<Q", len(value)) + value.encode())
            else:
                self._file.write(struct.pack("<Q", value))


def _pointers(structure: Structure | Array, base: int = 0, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """All pointers that are not null, as (field, offset, address)."""
    if isinstance(structure, Array):
        for i, element in enumerate(structure):
            yield from _pointers(element, base + i * ctypes.sizeof(element), f"{prefix}[{i}]")
        return
    for name, kind in structure._fields_:
        offset, value = base + getattr(type(structure), name).offset, getattr(structure, name)
        path = f"{prefix}.{name}".strip(".")
        if kind is c_void_p:
            if value:
                yield path, offset, value
        elif isinstance(value, Structure | Array):
            yield from _pointers(value, offset, path)


def _nearest(names: dict[Place, str], region: Region, word: int) -> str:
    """The field whose pointer leads to a place or to the nearest one before it."""
    before = {offset: name for (own, offset), name in names.items() if own is region and offset < (word + 1) * WORD}
    return before[max(before)] if before else "memory before any field's"


def _in_words(arguments: Structure) -> str:
    """A structure's sizes for people."""
    numbers = arguments.geometry if hasattr(arguments, "geometry") else arguments
    fields = ((name, getattr(numbers, name)) for name, kind, *_ in numbers._fields_ if kind in WHOLE)
    return "(" + ", ".join(f"{name} {value}" for name, value in fields) + ")"
