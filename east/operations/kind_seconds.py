"""Seconds of a kind of run at any density, from what was timed at a few densities."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from statistics import fmean

import numpy as np

from east.cost.parts import KindTimes, PartSeconds
from east.operations.kinds import Moment, Work

SAME_DENSITY = 1.5
"""Densities that differ by no more than this factor are timed as one."""

PARTS = tuple(field.name for field in fields(PartSeconds))


def timed_densities(lowest: float, highest: float) -> tuple[float, ...]:
    """Where a kind of run is timed whose densities are in this range: at both ends and in the middle, by logarithm."""
    middle = math.sqrt(lowest * highest)
    return (lowest, middle, highest) if highest > SAME_DENSITY * lowest else (middle,)


class KindSeconds:
    """Seconds of what runs of a kind consist of.

    Between two densities, seconds are taken to be linear in the logarithm of the density. They grow more slowly than
    the density itself, as the sparse engine chooses other kernels where there are more weights.

    Args:
        found: what processes found of the kind; their means count.

    Attributes:
        build: seconds to make network, masks, engine and optimizer.
        save: seconds to write a checkpoint and the records of an epoch.
        checkpoint_bytes: size of the largest checkpoint.
        batch: images that the timed steps had, the fewest.
        timed: when, and what was found.
    """

    def __init__(self, found: Sequence[KindTimes]) -> None:
        self.build = fmean(times.build for times in found)
        self.save = fmean(times.save for times in found)
        self.checkpoint_bytes = max(times.checkpoint_bytes for times in found)
        self.batch = min(times.batch for times in found)
        self.timed = {Moment(*key): _mean(times.parts[key] for times in found) for key in sorted(found[0].parts)}

    def at(self, moment: Moment) -> PartSeconds:
        """The parts at a moment; outside the densities that were timed, those of the nearest one."""
        known = {timed.density: parts for timed, parts in self.timed.items() if timed.dynamic == moment.dynamic}
        where, places = math.log(moment.density), np.log(list(known))

        def between(part: str) -> float:
            return float(np.interp(where, places, [getattr(parts, part) for parts in known.values()]))

        return PartSeconds(**{part: between(part) for part in PARTS})

    def of(self, work: Work) -> float:
        """Seconds of some work, with an evaluation and a checkpoint after each epoch."""
        seconds = 0.0
        for moment in work.steps.keys() | work.epochs.keys():
            parts = self.at(moment)
            seconds += work.steps[moment] * parts.step
            seconds += work.dense_gradients[moment] * parts.dense_gradients
            seconds += work.updates[moment] * parts.update
            seconds += work.epochs[moment] * (parts.evaluation + self.save)
        return seconds


def _mean(found: Iterable[PartSeconds]) -> PartSeconds:
    several = list(found)
    return PartSeconds(**{part: fmean(getattr(parts, part) for parts in several) for part in PARTS})
