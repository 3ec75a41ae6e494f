"""Trainings by methods beyond the paper: both engines, resumption to the bit, plugins that break and are corrected."""

import json

import pytest

from east.config import RunSpec, make_plan, read_config
from east.errors import EastError
from east.plugins import digest_of
from east.sparse.distribution import budget
from east.training.describe import make_allocation, network_shape
from east.training.hooks import Hook
from east.training.interrupt import Stopped
from east.training.loop import run_loop
from east.training.run import Resources, open_and_begin, train
from east.training.trace import Tracing
from tests.conftest import ROOT
from tests.unit.same_bits import StopAfter, checksum
from tests.unit.sparse_engines import CPU

pytestmark = pytest.mark.usefixtures("one_thread")

PLAN = make_plan(read_config(ROOT / "config" / "methods.yaml"))
ROWS = {run.row: run.spec for run in PLAN.runs if run.spec.seed == 1}


def changed(spec, **parts):
    """A run with other values in some of its parts."""
    content = spec.model_dump(mode="json")
    for part, values in parts.items():
        content[part] = content[part] | values if isinstance(values, dict) and content.get(part) else values
    return RunSpec.model_validate(content)


def small(spec):
    """The method of a run in two epochs of a narrow network: 14 steps, and an update every second one."""
    period = 2 if spec.sparsity.update_period < 24 else 6
    cycle = spec.cycle and {"cycle_length": 0.5, "update_period": 2}
    parts = {"cycle": cycle} if cycle else {}
    return changed(
        spec,
        model={"width": 4},
        sparsity={"density": 0.1, "update_period": period},
        training={"epochs": 2, "batch_size": 184, "lr_drop_epochs": []},
        **parts,
    )


class Counting(Hook):
    """Notes the counts of every layer after each update."""

    def __init__(self):
        self.seen = []

    def after_step(self, training, update):
        if update is not None:
            layers = training.masks.layers.items()
            self.seen.append((update.kind, {name: int(layer.mask.sum()) for name, layer in layers}))


def test_every_method_has_a_row_of_its_own_that_says_whose_it_is():
    assert len({spec.fingerprint for spec in ROWS.values()}) == len(ROWS) == 14
    assert all(not spec.plugins for spec in ROWS.values())


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_a_method_keeps_its_budget_on_either_engine(row, data_dir):
    spec = small(ROWS[row])
    weights = make_allocation(network_shape(spec), "erk").dense_weights
    found = {}
    for engine in ("sparse", "dense"):
        counting = Counting()
        training = open_and_begin(spec, Resources(device="cpu", engine=engine, data_dir=data_dir), CPU)
        assert run_loop(training, [counting]) == "finished"
        last = training.updates[-1]
        assert last.nonzeros == budget(0.1, weights)
        assert all(min(counts.values()) >= 1 for _, counts in counting.seen)
        found[engine] = [(kind, sum(counts.values())) for kind, counts in counting.seen]
    assert found["sparse"] == found["dense"]
    kinds = {kind for kind, _ in found["dense"]}
    wanted = {"cubic": {"schedule", "return"}, "static-fixed": set(), "cosine-m4": {"cycle", "return"}}
    assert next((those for name, those in wanted.items() if row.startswith(name)), {"exchange"}) <= kinds
    assert bool(kinds) == (row != "static-fixed")


STATEFUL = small(ROWS["static-momentum-f0.5-e0"])


def test_a_rule_that_remembers_goes_on_to_the_bit_and_with_any_number_of_threads(data_dir, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(STATEFUL, whole, Resources(device="cpu", engine="sparse", threads=3, data_dir=data_dir))
    one = Resources(device="cpu", engine="sparse", threads=1, data_dir=data_dir)
    with pytest.raises(Stopped):
        train(STATEFUL, stopped, one, [StopAfter(9)])
    summary = train(STATEFUL, stopped, one)
    assert checksum(whole) == checksum(stopped)
    assert str(summary.reproducibility) == "any processor"


def test_what_a_rule_remembers_is_in_the_trace(data_dir):
    rows = {}
    for decay in (0.9, 0.5):
        grow = {"name": "momentum", "decay": decay}
        spec = changed(STATEFUL, sparsity={"topology": {"grow": grow}, "update_period": 8})
        training = open_and_begin(spec, Resources(device="cpu", engine="dense", data_dir=data_dir), CPU)
        tracing = Tracing()
        run_loop(training, [tracing], until=2)
        rows[decay] = tracing.rows[-1]
    assert rows[0.9].weights == rows[0.5].weights
    assert rows[0.9].masks != rows[0.5].masks


# Plugins

BREAKING = """
from east.methods import growth_rule


@growth_rule(gradient="updates")
def breaking(layer):
    seen = layer.memory.get("steps", layer.weight.new_zeros(1))
    layer.memory["steps"] = seen + 1
    if layer.step == 10:
        raise RuntimeError("it has seen enough")
    return layer.gradient.abs()
"""
RIGHT = BREAKING.replace("if layer.step == 10:", "if layer.step == 1000:")


def planned(path):
    grow = {"name": "breaking", "plugin": digest_of(path)}
    return changed(small(ROWS["static-rigl-f0.3-e0-t0.75"]), sparsity={"topology": {"grow": grow}, "update_until": 1.0})


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "plugins").mkdir()
    path = tmp_path / "plugins" / "mine.py"
    path.write_text(BREAKING)
    return path


def test_a_rule_that_fails_ends_in_a_sentence_and_goes_on_from_its_checkpoint_once_it_is_corrected(
    plugin, data_dir, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    out, broken = tmp_path / "run", digest_of(plugin)

    def resources(**more):
        return Resources(device="cpu", engine="sparse", data_dir=data_dir, plugins=(plugin.parent,), **more)

    with pytest.raises(EastError) as failed:
        train(planned(plugin), out, resources())
    for said in (
        f"{plugin}:10: ",
        "growth rule 'breaking' failed at step 10",
        "it has seen enough",
        "a score for each",
    ):
        assert said in str(failed.value)
    assert json.loads((out / "state.json").read_text())["state"] == "failed"
    assert [path.name for path in out.glob("checkpoint*")] == ["checkpoint-000001.pt"]

    plugin.write_text(RIGHT)
    with pytest.raises(EastError, match="another content of a plugin"):
        train(planned(plugin), out, resources())
    assert len(list(out.glob("checkpoint*"))) == 1, "it stays"
    summary = train(planned(plugin), out, resources(changed_plugin="go_on"))
    first, *_, last = summary.attempt_records
    assert (first["plugins"], last["plugins"]) == ([broken], [digest_of(plugin)])
    assert (first["last_step"], last["first_step"]) == (8, 9)
    assert str(summary.reproducibility) == "statistical"

    # Trained in one go, from its description alone: the folder has all that is needed.
    alone = train(planned(plugin), tmp_path / "again", resources())
    assert str(alone.reproducibility) == "this processor, threads and PyTorch"
    plugin.unlink()
    from_description = RunSpec.model_validate_json((tmp_path / "again" / "run.json").read_text())
    beside = Resources(device="cpu", engine="sparse", data_dir=data_dir, plugins=(tmp_path / "again",))
    train(from_description, tmp_path / "third", beside)
    assert checksum(tmp_path / "again") == checksum(tmp_path / "third")


def test_a_changed_plugin_may_begin_again(plugin, data_dir, tmp_path):
    out = tmp_path / "run"
    places = {"device": "cpu", "engine": "dense", "data_dir": data_dir, "plugins": (plugin,)}
    with pytest.raises(EastError):
        train(planned(plugin), out, Resources(**places))
    plugin.write_text(RIGHT)
    summary = train(planned(plugin), out, Resources(**places, changed_plugin="begin_again"))
    assert summary.attempt_records[-1]["first_step"] == 1
    assert str(summary.reproducibility) == "this processor, threads and PyTorch"


def test_a_run_refuses_another_content_of_its_plugin(plugin, data_dir, tmp_path):
    spec = planned(plugin)
    plugin.write_text(RIGHT)
    with pytest.raises(EastError, match="growth rule 'breaking' of a plugin with SHA-256"):
        train(spec, tmp_path / "run", Resources(device="cpu", data_dir=data_dir, plugins=(plugin,)))


def test_a_run_without_anything_new_is_described_as_it_always_was(tiny_spec):
    written = tiny_spec.model_dump(mode="json")
    new = {"density_schedule", "update_until", "exchange_when_resizing", "lr_schedule", "warmup_epochs", "plugin"}
    keys = {key for part in written.values() if isinstance(part, dict) for key in part} | set(written)
    assert not keys & new
