import json
from dataclasses import replace

import pytest

from east.engine.base import ExecutionLog
from east.reproducibility import Reproducibility, weakest
from east.training.attempts import AttemptRecord, class_of_run

ANY, PROCESSOR, DEVICE, STATISTICAL = Reproducibility
SPARSE = AttemptRecord(
    attempt=1,
    first_step=1,
    last_step=6,
    choice="auto",
    engine="sparse",
    reproducibility=ANY,
    executions={"fused": 37},
    instruction_set="avx2",
    compiler="g++ 12",
    extra_flags="",
    threads=2,
    device="a processor",
    platform="Linux",
    versions={"torch": "2.13", "python": "3.12", "numpy": "2.1"},
    commit="c0ffee",
    code_digest="d1",
    dataset_digest="e1",
)
DENSE = replace(SPARSE, engine="dense", reproducibility=PROCESSOR, executions={"dense": 37})
GPU = replace(DENSE, reproducibility=DEVICE, device="a GPU")
ELSEWHERE = {
    "choice": "sparse",
    "instruction_set": "avx512",
    "compiler": "clang++ 16",
    "threads": 7,
    "device": "another",
    "platform": "Darwin",
    "versions": {"torch": "2.11", "python": "3.11", "numpy": "2.0"},
}


def test_the_weakest_of_classes_goes_by_their_order():
    assert weakest([]) == ANY
    assert weakest([ANY, DEVICE, PROCESSOR]) == DEVICE
    assert weakest([STATISTICAL, ANY]) == STATISTICAL
    assert [str(each) for each in Reproducibility] == [
        "any processor",
        "this processor, threads and PyTorch",
        "this device and versions",
        "statistical",
    ]


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([SPARSE], ANY),
        ([SPARSE, replace(SPARSE, **ELSEWHERE)], ANY),
        ([SPARSE, replace(SPARSE, code_digest="d2")], STATISTICAL),
        ([SPARSE, replace(SPARSE, dataset_digest="e2")], STATISTICAL),
        ([SPARSE, DENSE], PROCESSOR),
        ([DENSE, DENSE, SPARSE], PROCESSOR),
        ([replace(SPARSE, **ELSEWHERE | {"choice": "auto"}), DENSE], PROCESSOR),
        ([DENSE, replace(SPARSE, choice="sparse")], STATISTICAL),
        ([DENSE, replace(DENSE, platform="Linux 7", compiler=None)], PROCESSOR),
        ([DENSE, replace(DENSE, versions=DENSE.versions | {"numpy": "2.0"})], PROCESSOR),
        ([GPU, GPU], DEVICE),
        ([GPU, replace(GPU, versions=DENSE.versions | {"numpy": "2.0"})], STATISTICAL),
        ([replace(DENSE, reproducibility=STATISTICAL)], STATISTICAL),
    ],
)
def test_a_run_has_the_weakest_class_of_its_attempts(attempts, expected):
    assert class_of_run(attempts, "cifar10") == expected


@pytest.mark.parametrize("name", ["choice", "instruction_set", "threads", "device", "versions"])
def test_attempts_that_differ_in_what_their_class_takes_for_granted_are_repeated_by_no_training(name):
    assert class_of_run([DENSE, replace(DENSE, **{name: ELSEWHERE[name]})], "cifar10") == STATISTICAL


def test_images_that_are_decoded_while_training_bind_a_run_to_its_processor():
    assert class_of_run([SPARSE], "imagenet") == PROCESSOR
    assert class_of_run([SPARSE, replace(SPARSE, threads=7)], "imagenet") == STATISTICAL


def test_a_record_survives_json():
    assert AttemptRecord.load(json.loads(json.dumps(SPARSE.as_dict()))) == SPARSE


def test_a_layer_counts_once_for_every_way_in_which_it_was_executed():
    log = ExecutionLog()
    log.note({"a": "fused", "b": "fused"})
    log.note({"a": "tiled", "b": "fused"})
    log.note({"a": "fused", "b": "fused"})
    assert log.counts() == {"fused": 2, "tiled": 1}
