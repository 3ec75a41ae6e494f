"""What executed a run, a record for each attempt at it, and how far that makes its bytes repeatable."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from east.reproducibility import Reproducibility, weakest

_CODE_AND_DATA = ("code_digest", "dataset_digest")
_PROCESSOR = ("device", "instruction_set", "threads", "torch")
_SURROUNDINGS: Mapping[Reproducibility, tuple[str, ...]] = {
    Reproducibility.ANY_PROCESSOR: (),
    Reproducibility.THIS_PROCESSOR: _PROCESSOR,
    Reproducibility.THIS_DEVICE: (*_PROCESSOR, "platform", "versions"),
    Reproducibility.STATISTICAL: (),
}
"""Class -> what decides the bytes of an attempt of it, beside code and data."""

FOLDERS_OF_IMAGES = frozenset({"imagenet"})
"""Data sets that are decoded and scaled while training, by libraries whose versions and instructions round alike."""


@dataclass(frozen=True)
class AttemptRecord:
    """What computed a part of a run: one process.

    Attributes:
        attempt: which one, counted from 1.
        first_step: the first optimizer step that it did, counted from 1.
        last_step: the last one, as far as a checkpoint holds it; less than the first where it only evaluated.
        choice: the engine that was made: `auto`, `sparse` or `dense`.
        engine: what executed, see `Executed`; so are the next five.
        threads: CPU threads of PyTorch.
        device: name of the processor or GPU.
        platform: system and processor architecture.
        versions: of Python, this package, and the libraries that compute.
        commit: of the checkout that the code was read from, where it was one.
        code_digest: of the code that decides numbers.
        dataset_digest: of the prepared data set.
    """

    attempt: int
    first_step: int
    last_step: int
    choice: str
    engine: str
    reproducibility: Reproducibility
    executions: Mapping[str, int]
    instruction_set: str | None
    compiler: str | None
    extra_flags: str | None
    threads: int
    device: str
    platform: str
    versions: Mapping[str, str]
    commit: str | None
    code_digest: str
    dataset_digest: str | None

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Self:
        """What `as_dict` gave."""
        return cls(**{**saved, "reproducibility": Reproducibility(saved["reproducibility"])})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return asdict(self) | {"reproducibility": str(self.reproducibility)}


def class_of_data(dataset: str) -> Reproducibility:
    """The strongest class that a run on a data set can have."""
    images_are_decoded = dataset in FOLDERS_OF_IMAGES
    return Reproducibility.THIS_PROCESSOR if images_are_decoded else Reproducibility.ANY_PROCESSOR


def class_of_run(attempts: Sequence[AttemptRecord], dataset: str) -> Reproducibility:
    """The class of a whole run: the weakest of its data and attempts.

    It is statistical where attempts differ in what that class takes to be equal, since no one training repeats them:
    in code or data; in the engine that was chosen, unless its bytes are those of any processor throughout; in the
    surroundings of attempts whose bytes depend on them.
    """
    data = class_of_data(dataset)
    found = weakest([data, *(record.reproducibility for record in attempts)])
    everywhere = Reproducibility.ANY_PROCESSOR
    bound = [record for record in attempts if weakest([data, record.reproducibility]) != everywhere]
    agree = (
        _agree(attempts, _CODE_AND_DATA)
        and (found == everywhere or _agree(attempts, ("choice",)))
        and _agree(bound, _SURROUNDINGS[found])
    )
    return found if agree else Reproducibility.STATISTICAL


def _agree(attempts: Sequence[AttemptRecord], names: Sequence[str]) -> bool:
    facts = [record.as_dict() | {"torch": record.versions.get("torch")} for record in attempts]
    return all(fact[name] == facts[0][name] for fact in facts for name in names)
