"""Checks of space: what the plan will still write, against what is free."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from east.config.run import ModelSpec, RunSpec
from east.data.catalog import DATASETS
from east.data.manifest import MANIFEST_FILE
from east.operations.doctor.finding import Finding
from east.operations.doctor.surroundings import Surroundings, existing
from east.training.folder import SUMMARY

BLOCKS = (3, 4, 6, 3)
CONVOLUTIONS = {
    "resnet34": ((3, 1), (3, 1)),
    "resnet50": ((1, 1), (3, 1), (1, 4)),
    "resnet50_imagenet": ((1, 1), (3, 1), (1, 4)),
}
"""Network -> kernel size, and output channels in units of the stage's width, of each convolution of a block."""

BYTES_A_WEIGHT = 5
"""Of the final weights on disk: four of a weight, one of its mask."""

RECORDS = 2 << 20
"""Bytes of everything else that a run leaves: records, summary, log."""

COPIES = 3
"""A data set while it is prepared: archive, unpacked files, tensors."""

KERNELS = 50 << 20
"""Bytes of compiled kernels, generously."""

TIGHT = 1.25
"""Space is tight with less than this many times the need."""


def space(here: Surroundings) -> Iterator[Finding]:
    """Each file system that the plan writes to holds what the plan will still write."""
    cache = here.ask.probe("kernels").get("cache")
    needs = {
        "results": (here.results, results_need(here)),
        "data": (here.data, data_need(here)),
        **({"compiled kernels": (Path(cache), KERNELS)} if cache else {}),
    }
    by_device: dict[int, list[str]] = defaultdict(list)
    for name, (path, _) in needs.items():
        by_device[existing(path).stat().st_dev].append(name)
    for names in by_device.values():
        folder = existing(needs[names[0]][0]).resolve()
        need, free = sum(needs[name][1] for name in names), here.disk_usage(folder).free
        found = f"{_gigabytes(free)} free for {' and '.join(names)} in {folder}; the plan may need {_gigabytes(need)}"
        mend = f"du -xh {folder} | sort -h | tail; or move results/ or execution.data_dir to a larger disk"
        if free < need:
            yield Finding("error", found, "The plan would stop when the disk is full.", mend)
        elif free < need * TIGHT:
            yield Finding("warning", found, "Little is left for anything else.", mend)
        else:
            yield Finding("ok", found)


def results_need(here: Surroundings) -> int:
    """Bytes that the runs which have not ended will leave, at most."""
    return sum(
        run_bytes(run.spec) for run in here.plan.runs if not (here.results / "runs" / run.id / SUMMARY).is_file()
    )


def data_need(here: Surroundings) -> int:
    """Bytes that preparing the data sets takes while it goes on; ImageNet stays where it is."""
    return sum(
        COPIES * image_bytes(name)
        for name in here.plan.datasets()
        if name != "imagenet" and not (here.data / name / MANIFEST_FILE).is_file()
    )


def run_bytes(spec: RunSpec) -> int:
    """Bytes that a run leaves, at most: weights and masks in full, and its records."""
    return BYTES_A_WEIGHT * stored_weights(spec.model, DATASETS[spec.dataset.name].num_classes) + RECORDS


def image_bytes(dataset: str) -> int:
    """Bytes of a data set's images, one byte a number."""
    info = DATASETS[dataset]
    channels, height, width = info.image_shape
    return (info.train_images + info.test_images) * channels * height * width


def stored_weights(model: ModelSpec, num_classes: int) -> int:
    """Weights of a network's masked layers, counted without PyTorch.

    Args:
        model: the network; blocks that reuse weights store none.
        num_classes: outputs of the classifier.
    """
    design = CONVOLUTIONS[model.name]
    stem = 7 if model.name == "resnet50_imagenet" else 3
    channels, total = model.width, 3 * model.width * stem**2
    for stage, blocks in enumerate(BLOCKS):
        width = model.width << stage
        for block in range(blocks):
            owner = model.sharing_ratio is None or block < model.sharing_ratio
            first = channels
            for kernel, expansion in design:
                total += owner * channels * width * expansion * kernel**2
                channels = width * expansion
            if block == 0 and first != channels:
                total += first * channels
    return total + channels * num_classes


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
