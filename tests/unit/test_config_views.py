"""What a configuration comes to, as committed: a plan with a bit of everything, and what is said of mistakes.

`python -m tests.unit.test_config_views` writes `views/plan.jsonl` and `views/refusals.txt` again; read the difference.
"""

import json
import tempfile
from pathlib import Path

from east.config import load_plan, make_plan, read_config
from east.config.plan import cost_plan
from east.errors import EastError
from tests.unit.small_config import in_a_project

VIEWS = Path(__file__).with_name("views")

PLAN = """
name: viewed
title: |
  A bit of
  everything
seeds: [17, 4]
density: 0.0005
readings: {phasing_freeze: true, spread: population, drop_fraction: 0, drop_fraction_end: 0}
comparison: {margin: 1.5, published_spread: standard_error}
execution: {device: cpu, runs_per_gpu: 2}
recipes:
  faded: {system: Faded, model: resnet34, width: 8, datasets: [digits, imagenet],
    components: {activation: dyrelu, sharing_ratio: 2, dct: true}, batch_size: 64, epochs: 4, lr: 0.05,
    lr_drop_epochs: [2], lr_drop_factor: 0.5, optimizer: {name: adam}, weight_decay: 0,
    gradient_clip: {norm: 2, scope: active}, distribution: uniform, update_period: 10, density: 0.05,
    cyclic: {pattern: triangular, multiplier: 4, cycles: 1, cycle_length: 2, update_period: 3}}
tables:
  table2:
    published: table2.csv
    rows:
      - {static: true}
      - {static: true, label: SET, topology: set, footnote: By hand, density: 2.0e-4}
      - {pattern: [cosine, triangular], multiplier: [2.5, 10], cycles: 2, label: Both}
      - {pattern: cosine, multiplier: 3, cycles: 3, length_multiplier: 2, fit: rescale, printed_cycles: 2, footnote: Ah}
      - {pattern: cosine, multiplier: 3, cycles: 1, cycle_length: 12.5, density: 0.125, distribution: uniform}
  tableX:
    recipe: faded
    dataset: digits
    title: Of my own
    model: resnet50
    components: {sharing_ratio: 2}
    rows: [{pattern: cosine, multiplier: 3, cycles: 2, cycle_length: 1, length_multiplier: 1.5}]
methods:
  recipes: {cifar10: plain, digits: faded}
  rows: {"Ré": {activation: dyrelu, measured_at_beta: 0}, "方法": {cyclic: true, dct: true}}
  systems: [faded]
cost: {recipe: faded, density: 0.1, measured_steps: 7, measured_batch: {cpu: 3}, published: table6.csv}
"""

MISTAKES = """
densty: 0.1
density: "5"
density: true
density: {of: all}
density: 2
density: [0.1]
seeds: 17
seeds: [17, x]
seeds: ["017"]
seeds: [3, 3]
seeds: []
name: 7
name: [..]
title: {a: b}
title: ""
title: 2020-01-01
execution: cpu
execution: {device: {name: cpu}}
execution: {threads: some}
execution: {partial: perhaps}
execution: {engine: spares}
execution: {data_dir: $EAST_NOT_SET/x, tracking: tensorbord, runs_per_gpu: 1.5}
execution: {device: a value that is quoted whole when it has this very length.}
execution: {device: a value that is not quoted whole because it is a bit longer}
readings: {gradient_clip: 1}
readings: {gradient_clip: {norm: 0, scope: dense}}
readings: {gradient_clip: {norm: 1, scope: dense, estimator: exact, probes: 2}}
readings: {accuracy: best}
comparison: {level: 1}
datasets: {cifr10: {padding: zero, flip: true, validation: 0, validation_choice: last}}
datasets: {cifar10: null, digits: {padding: null}}
datasets: {cifar10: null}
recipes: {mine: {system: Of mine}}
recipes: {plain: {gradient_clip: {norm: 1, scope: active, probes: 2}}}
recipes: {plain: {gradient_clip: {norm: 1, scope: activ}}}
recipes: {plain: {gradient_clip: none}}
recipes: {plain: {cyclic: {update_period: 350.5}}}
recipes: {plain: {optimizer: {name: adam}}}
recipes: {plain: {optimizer: {name: adam, momentum: 0}}}
recipes: {plain: {optimizer: {name: adam, nesterov: false}}}
recipes: {plain: {density: 1.0e-7}}
recipes: {"of\\e": {}}
tables: {mine: {recipe: plain, dataset: cifar10, rows: [{static: true}]}}
tables: {table2: {rows: []}}
tables: {table2: {rows: [{static: 7}]}}
tables: {table2: {rows: [{static: true}, {pattern: square, multiplier: 3, cycles: 1}]}}
tables: {table2: {rows: {static: true}}}
tables: {table2: {recipe: null}}
tables: {table2: {published: 7, title: [a], dataset: mnist}}
tables: {table2: {components: {sharing_ratio: 2}, rows: [{pattern: cosine, multiplier: 3, cycles: 1, density: 0.3}]}}
tables: {table2: {components: {sharing_ratio: 2}, rows: [{static: true, density: 0.9}]}}
tables: {table2: {rows: [{pattern: cosine, multiplier: 1.000001, cycles: 1}]}}
tables: {table2: {rows: [{pattern: cosine, multiplier: 3, cycles: 1, cycle_length: 0.5}]}}
methods: {systems: [none, none], recipes: {digits: nothing}}
methods: {rows: {A b: {}, a/B: {dct: true}}}
methods: {rows: {Cyclic: {cyclic: perhaps}}}
{recipes: {plain: {cyclic: null}}, tables: {table2: {rows: [{static: true}]}}}
{recipes: {plain: {cyclic: null}}, methods: {rows: {Cyclic: null}}}
cost: {recipe: none, dataset: cifar10}
cost: {model: resnet50_imagenet, dataset: digits, density: 0.1, measured_batch: {cpu: 1}}
{density: 2, seeds: [], title: "", name: 7, cost: {densty: 1}, comparison: {level: 1}}
{density: 2, seeds: [], title: "", name: 7, cost: {densty: 1}, comparison: {level: 1, margin: 0}}
density: 7\\nreadings:\\n  spread: wide
recipes:\\n  one: &one\\n    lr: -1\\n    epochs: 0\\n  plain:\\n    <<: [*one, {width: 0}]\\n    lr: -2
recipes:\\n  <<: 3
title: a\\ntitle: b
a: 1\\nb: [
[1, 2
"""
"""A line for each overlay, with \\\\n for the ends of its own lines."""


def plan_shown():
    Path("overlay.yaml").write_text(PLAN, encoding="utf-8")
    config = read_config("overlay.yaml")
    plan, cost = make_plan(config), cost_plan(config)
    parts = {
        "notes": list(plan.notes),
        "runs": [described(run) for run in plan.runs if run.spec.seed == 17],
        "tables": [table.model_dump(mode="json", exclude={"rows"}) for table in plan.tables],
        "rows": [row.model_dump(mode="json") for table in plan.tables for row in table.rows],
        "cost": [cost.model_dump(mode="json", exclude={"entries"}), *map(described, cost.entries)],
    }
    lines = [json.dumps({part: one}, ensure_ascii=False) for part, several in parts.items() for one in several]
    return "".join(f"{line}\n" for line in lines)


def described(run):
    return run.model_dump(mode="json", exclude={"spec"}) | json.loads(run.spec.canonical_json())


def refusals_shown():
    shown = []
    for mistake in MISTAKES.strip().splitlines():
        Path("overlay.yaml").write_text(mistake.replace("\\n", "\n"), encoding="utf-8")
        try:
            load_plan("overlay.yaml")
        except EastError as error:
            said = str(error)
        else:
            said = "accepted"
        shown.append(f"{mistake}\n" + "".join(f"    {line}\n" for line in said.splitlines()))
    return "\n".join(shown)


def test_a_plan_with_a_bit_of_everything(tmp_path):
    assert in_a_project(plan_shown, tmp_path) == (VIEWS / "plan.jsonl").read_text(encoding="utf-8")


def test_what_is_said_of_mistakes(tmp_path):
    assert in_a_project(refusals_shown, tmp_path) == (VIEWS / "refusals.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    for name, show in {"plan.jsonl": plan_shown, "refusals.txt": refusals_shown}.items():
        with tempfile.TemporaryDirectory() as folder:
            (VIEWS / name).write_text(in_a_project(show, folder), encoding="utf-8")
