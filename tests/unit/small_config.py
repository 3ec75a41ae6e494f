"""A project of one recipe, one table and two methods, whose configuration is read in no time."""

from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

BASE = """
name: base
title: Of few things
seeds: [17]
density: 0.001
datasets:
  cifar10: {padding: reflect, flip: true, validation: 5000, validation_choice: last}
  digits: {margin: 1, padding: zero, flip: false, validation: 144, validation_choice: shuffled}
  imagenet: {margin: 0, padding: zero, flip: true, validation: 0, validation_choice: last}
recipes:
  plain:
    system: Plain
    model: resnet34
    width: 64
    datasets: [cifar10, imagenet]
    batch_size: 128
    epochs: 250
    lr: 0.1
    lr_drop_epochs: [75, 150]
    optimizer: {name: sgd, momentum: 0.9, nesterov: true}
    weight_decay: 1.0e-4
    distribution: erk
    update_period: 4000
    cyclic: {multiplier: 10, cycles: 2, cycle_length: 50, update_period: 350}
tables:
  table2:
    recipe: plain
    dataset: cifar10
    rows: [{static: true}, {pattern: cosine, multiplier: 3, cycles: 1}]
methods:
  recipes: {cifar10: plain}
  rows: {RigL: {}, Cyclic: {cyclic: true}}
cost: {recipe: plain, dataset: cifar10, measured_batch: {cpu: 8}}
"""
"""Its config.yaml."""


def in_a_project(show: Callable[[], T], folder: Path) -> T:
    """What a function returns in a folder that holds this config.yaml."""
    with chdir(folder):
        Path("config.yaml").write_text(BASE.lstrip(), encoding="utf-8")
        return show()
