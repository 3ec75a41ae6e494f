"""What stands for CUDA graphs where there is no GPU."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

WAITING = {
    aten._local_scalar_dense.default,  # .item(), float(), bool()
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.lift_fresh.default,  # torch.tensor(): a copy from ordinary memory
    aten.where.ScalarSelf,
    aten.where.ScalarOther,
    aten.where.Scalar,
}
"""Operations for which the CPU waits for a GPU."""


def tensors(*values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def storage(tensor):
    return tensor.untyped_storage().data_ptr()


class Tape(TorchDispatchMode):
    """Operations of PyTorch with the memory that they read and write, as a CUDA graph holds them.

    Whatever Python does between them is gone when they are done again; results come to lie where they were before.

    Args:
        check: fail on an operation for which the CPU would wait for a GPU.
    """

    def __init__(self, *, check=True):
        super().__init__()
        self.check = check
        self.calls = []
        self.before, self.made = {}, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        by_mask = func in {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default} and any(
            index.dtype == torch.bool for index in tensors(args[1])
        )
        assert not self.check or (func not in WAITING and not by_mask), f"the CPU waits for {func}"
        for tensor in tensors(args, kwargs):
            if storage(tensor) not in self.made:
                self.before.setdefault(storage(tensor), (tensor, tensor.untyped_storage().clone()))
        found = func(*args, **kwargs)
        self.made |= {storage(tensor) for tensor in tensors(found)} - self.before.keys()
        self.calls.append((func, args, kwargs, found))
        return found

    def undo(self):
        """Put back what was there before."""
        for tensor, content in self.before.values():
            tensor.untyped_storage().copy_(content)

    @torch.no_grad()
    def repeat(self):
        """Do all of it again on the same memory."""
        for func, args, kwargs, found in self.calls:
            for old, new in zip(tensors(found), tensors(func(*args, **kwargs)), strict=True):
                if storage(old) != storage(new):
                    old.copy_(new)


class Tapes:
    """A recorder of tapes."""

    def __init__(self):
        self.warmed, self.tapes = 0, []

    def warm_up(self, work):
        self.warmed += 1
        work()

    def record(self, work):
        tape = Tape()
        with tape:
            work()
        tape.undo()
        self.tapes.append(tape)
        return tape.repeat
