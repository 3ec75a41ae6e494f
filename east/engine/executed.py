"""What an engine says that it executed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from east.reproducibility import Reproducibility


@dataclass(frozen=True)
class Executed:
    """What an engine has executed since it was made.

    Attributes:
        engine: `sparse` or `dense`, or both names where both have executed.
        reproducibility: the weakest class of all that was executed.
        executions: kind of execution -> number of layers that were executed so at some time; a layer counts once for
            every kind.
        instruction_set: of the processor, as far as it was used.
        compiler: what compiled the engine's own kernels; None where it has none.
        extra_flags: what a user has added to the compiler's flags; None where there is no compiler.
    """

    engine: str
    reproducibility: Reproducibility
    executions: Mapping[str, int]
    instruction_set: str | None = None
    compiler: str | None = None
    extra_flags: str | None = None


@dataclass
class ExecutionLog:
    """Remembers in which ways each layer has been executed."""

    _kinds: dict[str, set[str]] = field(default_factory=dict)

    def note(self, executions: Mapping[str, str]) -> None:
        """Add how layers are executed from now on: layer name -> kind."""
        for layer, kind in executions.items():
            self._kinds.setdefault(layer, set()).add(kind)

    def counts(self) -> dict[str, int]:
        """Kind -> number of layers that were executed so at some time, by kind."""
        found = Counter(kind for kinds in self._kinds.values() for kind in kinds)
        return dict(sorted(found.items()))
