"""Checkpoints that survive anything: whole or absent, verified before use, small, and loaded without executing code."""

import hashlib
import io
import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from east.errors import EastError
from east.files import about, read_regular, write_atomically
from east.training.folder import CHECKPOINTS, checkpoint_name

LOG = logging.getLogger(__name__)

ChangedPlugin = Literal["refuse", "go_on", "begin_again"]

KEPT = 2
PACKED = "packed tensor"
PACKING_THRESHOLD = 0.25
_DAMAGED = (
    *(ValueError, TypeError, LookupError, AttributeError, EOFError, OverflowError, RuntimeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
"""What PyTorch and `unpack` raise where a content is not what was saved."""

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Checkpoints:
    """The checkpoints of one run in its folder: the last two.

    A file, named by `checkpoint_name`, is the SHA-256 of its content in hexadecimal, a line break, and the content as
    `torch.save` writes it.

    The fingerprint is the run's identity: checkpoints of any other run are never loaded, but for one of a run that
    differs in the content of its plugins alone, which a plugin that was corrected may go on from.

    Args:
        folder: of the run.
        fingerprint: the run's.
        kin: the fingerprint that such runs have in common; empty for a run without plugins.
        changed_plugin: what happens to a checkpoint of another content: `refuse` ends, `go_on` takes it, `begin_again`
            removes it.
    """

    def __init__(self, folder: Path, fingerprint: str, kin: str = "", changed_plugin: ChangedPlugin = "refuse") -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self._kin, self._changed_plugin = kin, changed_plugin

    def save(self, epoch: int, state: dict[str, Any], steps: int = 0) -> None:
        """Write a state, then remove all but the last two checkpoints.

        `epoch` epochs are done, and `steps` steps of the next.
        """
        buffer = io.BytesIO()
        kin = {"kin": self._kin} if self._kin else {}
        torch.save({"fingerprint": self.fingerprint, **kin, "epoch": epoch, "state": pack(state)}, buffer)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest().encode()
        write_atomically(self.folder / checkpoint_name(epoch, steps), digest + b"\n" + content)
        for old in self._files()[:-KEPT]:
            old.unlink()

    def load_latest(self) -> dict[str, Any] | None:
        """State of the newest usable checkpoint of this run, or None.

        A damaged file is set aside as `*.damaged` with a warning, and the one before it is tried. Checkpoints of
        another run (its configuration changed) are removed, with a warning as well.

        Raises:
            OSError: a file cannot be read now; it may be whole.
            EastError: it was made with another content of a plugin, and nobody has said what to do then.
        """
        for path in reversed(self._files()):
            with about(path):
                whole = read_regular(path)
            try:
                digest, _, packed = whole.partition(b"\n")
                if hashlib.sha256(packed).hexdigest().encode() != digest:
                    raise ValueError("its checksum does not match")
                content = torch.load(io.BytesIO(packed), weights_only=True, map_location="cpu")
                fingerprint, state = content["fingerprint"], unpack(content["state"]) | {"epoch": content["epoch"]}
            except _DAMAGED as error:
                aside = path.with_suffix(".damaged")
                path.replace(aside)
                LOG.warning(
                    "%s is damaged (%s) and was set aside as %s; using the one before it.", path.name, error, aside.name
                )
                continue
            if fingerprint != self.fingerprint and not self._is_taken(path, content.get("kin")):
                LOG.warning("%s belongs to another configuration of this run and was removed.", path.name)
                path.unlink()
                continue
            found: dict[str, Any] = state
            return found
        return None

    def _is_taken(self, path: Path, kin: str | None) -> bool:
        """Whether a checkpoint of another fingerprint is gone on from."""
        if not self._kin or kin != self._kin or self._changed_plugin == "begin_again":
            return False
        if self._changed_plugin == "refuse":
            raise EastError(
                f"{path} was made with another content of a plugin. Set execution.changed_plugin (--changed-plugin) to "
                "go_on to go on from it, after which no one training repeats the run; or to begin_again."
            )
        LOG.warning("%s was made with another content of a plugin; going on from it, as asked for.", path.name)
        return True

    def clear(self) -> None:
        """Remove all checkpoints."""
        for path in self._files():
            path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(CHECKPOINTS))


def pack(value: Any) -> Any:
    """Replace every mostly-zero tensor in a nested structure by its non-zero elements, without loss.

    At the paper's density a checkpoint shrinks from 190 MB to less than 1 MB. Elements count as zero by their bits, so
    a negative zero survives.
    """
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [pack(item) for item in value]
    if isinstance(value, Tensor):
        # Where the tensor is: from a GPU, only the elements that are kept are copied.
        value = value.detach().contiguous()
        flat = value.flatten()
        positions = flat.view(_BITS[value.element_size()]).nonzero().squeeze(1)
        if len(positions) < PACKING_THRESHOLD * value.numel():
            index = positions.to(torch.int32) if value.numel() < 2**31 else positions
            return {PACKED: list(value.shape), "index": index.cpu(), "value": flat[positions].cpu()}
        return value.cpu()
    return value


def unpack(value: Any) -> Any:
    """The inverse of `pack` (tuples come back as lists)."""
    if isinstance(value, dict) and PACKED in value:
        tensor = torch.zeros(value[PACKED], dtype=value["value"].dtype)
        tensor.view(-1)[value["index"].long()] = value["value"]
        return tensor
    if isinstance(value, dict):
        return {key: unpack(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unpack(item) for item in value]
    return value
