"""Trainings shorter than their recipes: one factor for whatever is counted in epochs or steps of a training.

So a schedule keeps its shape: learning-rate drops, cycles and mask updates come at the same shares of the training, and
there are as many of them. What belongs to a single step stays: batch size, learning rate, momentum, weight decay,
gradient clip, drop fraction. DyReLU fades at shares of the training anyway.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeVar

from pydantic import BaseModel

from east.config.choices import Choice, ChoiceOf, entry_named, member, named
from east.config.places import Location, Mistake
from east.config.schema import Config
from east.config.vocabulary import UnitName, metadata_of
from east.registry import Kind

Section = TypeVar("Section", bound=BaseModel)

OF_TRAININGS = ("epochs", "steps")
"""Units that count a training's length."""
OF_STEPS = ("gradient_clip", "optimizer")
"""Sections that say what a single step does, though one of their numbers may count steps."""


def shortened(config: Config) -> Config:
    """A configuration with all of its recipes at `training_length` of their length.

    Whole numbers are rounded to the nearest, halves up. At a length of 1 it is the same configuration.

    Raises:
        EastError: a number of epochs would not be whole, two drops of the learning rate would fall together, or
            something would come less than one epoch or step after the last; all mistakes are named at once.
    """
    if config.training_length == 1:
        return config
    scale = _Scale(Fraction(repr(config.training_length)), config)
    recipes = {name: scale.section(recipe, ("recipes", name)) for name, recipe in config.recipes.items()}
    config.sources.refuse(scale.mistakes)
    found = config.model_copy(update={"recipes": recipes})
    found.came_from(config.sources, config.catalogue, written=config)
    return found


def at_training_length(config: Config, section: Section, location: Location) -> Section:
    """A row, or a recipe with what a row changes of it, at the `training_length` of its configuration.

    Raises:
        EastError: as for `shortened`.
    """
    if config.training_length == 1:
        return section
    scale = _Scale(Fraction(repr(config.training_length)), config)
    found = scale.section(section, location)
    config.sources.refuse(scale.mistakes)
    return found


@dataclass
class _Scale:
    """Multiplies what counts a training's length.

    Attributes:
        length: share of it.
        config: that is shortened.
        mistakes: what does not fit.
    """

    length: Fraction
    config: Config
    mistakes: list[Mistake] = field(default_factory=list)

    def section(self, section: Section, location: Location) -> Section:
        """A section of the configuration at the length."""
        changed = {}
        for key, described in type(section).model_fields.items():
            value = getattr(section, key)
            found = value if key in OF_STEPS else self._value(value, list(metadata_of(described)), (*location, key))
            if found != value:
                changed[key] = found
        return section.model_copy(update=changed)

    def _value(self, value: Any, metadata: list[Any], location: Location) -> Any:
        kind = next((found.kind for found in metadata if isinstance(found, ChoiceOf)), None)
        if kind is not None and isinstance(value, str | Choice):
            return self._choice(kind, value, location)
        if isinstance(value, BaseModel):
            return self.section(value, location)
        if isinstance(value, tuple):
            return self._several(value, tuple(self._value(part, metadata, location) for part in value), location)
        unit = next((found.name for found in metadata if isinstance(found, UnitName)), "")
        if unit not in OF_TRAININGS or not isinstance(value, int | float):
            return value
        return self._number(value, unit, location)

    def _several(self, written: tuple[Any, ...], found: tuple[Any, ...], location: Location) -> tuple[Any, ...]:
        """Values that are told apart by when something comes, such as drops of the learning rate."""
        if found != written and len(set(found)) < len(set(written)):
            sentence = (
                f"at training_length {self.config.training_length:g}, {', '.join(map(str, written))} come after "
                f"{', '.join(map(str, found))}, two of them together. Train for longer."
            )
            self.mistakes.append(Mistake(location, sentence))
        return found

    def _choice(self, kind: Kind, choice: str | Choice, location: Location) -> str | Choice:
        """A member of a registry; parameters that count epochs or steps are scaled, given ones and defaults alike."""
        name, given, _ = named(choice)
        entry = entry_named(kind, name, self.config.catalogue)
        counted = {
            one.name: self._number(given.get(one.name, one.default), one.unit, (*location, one.name))
            for one in entry.parameters
            if one.unit in OF_TRAININGS and isinstance(given.get(one.name, one.default), int | float)
        }
        return member(kind, name, given | counted, self.config.catalogue) if counted else choice

    def _number(self, value: float, unit: str, location: Location) -> float:
        exact = Fraction(repr(value)) * self.length
        if isinstance(value, float):
            return float(exact)
        found = math.floor(exact + Fraction(1, 2))
        text = f"{value:,} {unit} at training_length {self.config.training_length:g} are {float(exact):,g}"
        if location[-1] == "epochs" and exact.denominator != 1:
            lengths = [Fraction(math.floor(exact) + more, value) for more in (0, 1)]
            usable = " or ".join(f"{float(one):.12g}" for one in lengths if 0 < one <= 1 and _is_decimal(one, value))
            self.mistakes.append(Mistake(location, f"{text}, not a whole number.{_advice(usable)}"))
        elif found == 0 < value:
            self.mistakes.append(Mistake(location, f"{text}, less than half of one. Train for longer."))
        return max(found, 1)


def _is_decimal(length: Fraction, epochs: int) -> bool:
    """Whether a length can be written so that the epochs are whole."""
    return (Fraction(f"{float(length):.12g}") * epochs).denominator == 1


def _advice(usable: str) -> str:
    return f" Set training_length to {usable}." if usable else " Choose another training_length, or other epochs."
