import csv
import io
import json

import pytest

from east.analysis.sources import Sources
from east.cost.record import CostRecord
from east.errors import EastError
from east.render.cost import PublishedCost, costs_json, explain_differences, read_costs, render_cost
from tests.unit.fake_report import write_derived
from tests.unit.fake_runs import PUBLISHED

TABLE = PUBLISHED / "table6.csv"
RIGL = {
    "method": "RigL",
    "param_size_mb": 81.3606,
    "est_total_mb": 100.4352,
    "trainable_parameters": 21_328_192,
    "nonzeros": 10_664,
    "batch_norm_parameters": 17_024,
    "dyrelu_parameters": 0,
    "flops_inference_dense": 2.32e9,
    "flops_inference_sparse": 5.1e6,
    "peak_memory_mb": 1822.4,
    "seconds_per_step": 0.2041,
    "hours_estimate": 0.512,
    "measured_batch_size": 128,
    "measured_on": "a CPU",
}


def output(rows, **keys):
    records = [CostRecord.model_validate(row) for row in rows]
    return render_cost(records, TABLE, network="ResNet-34", dataset="CIFAR-100", **keys)


def test_the_papers_accounting_stands_beside_the_printed_numbers():
    result = output([RIGL])
    assert "| RigL | 0.51 | &lt;1 | 81.36 | 81.36 | 100.44 | 100.44 |" in result.md
    parameters = "21\u202f328\u202f192 | 10\u202f664 | 17\u202f024 | 0 | –"
    assert f"| RigL | {parameters} | 2.32 G | 5.10 M | – | – | 1822 | 0.204 | 128 |" in result.md
    assert "Measured on a CPU." in result.md
    record = next(csv.DictReader(io.StringIO(result.csv)))
    assert (record["published_train_time"], record["published_est_total_mb"]) == ("<1", "100.44")
    assert record["flops_training_dense"] == ""
    assert result.tex.count(r"\begin{table}") == result.tex.count(r"\end{table}") == 2
    assert result.html.count("<figure") == 2


def test_a_size_that_differs_is_marked_only_where_it_can_be_compared():
    row = RIGL | {"param_size_mb": 81.40}
    assert "| **81.40** ≠ | 81.36 |" in output([row]).md
    other = output([row], comparable=False).md
    assert "≠" not in other
    assert "do not test the paper's numbers" in other


def test_the_dyrelu_row_says_what_it_leaves_out():
    row = CostRecord(method="EAST w/ DyReLU", param_size_mb=81.36, est_total_mb=107.81)
    active = row.model_copy(update={"param_size_mb_active": 93.5, "est_total_mb_active": 120.44})
    published = PublishedCost(method="EAST w/ DyReLU", train_time="~1", param_size_mb=81.36, est_total_mb=107.81)
    assert explain_differences(row, published) == []
    (sentence,) = explain_differences(active, published)
    assert "paper" in sentence
    assert "93.50 MB of parameters and 120.44 MB in total" in sentence
    (alone,) = explain_differences(active, None)
    assert "paper" not in alone


def test_frozen_dct_matrices_are_told_from_trained_parameters():
    # 21,328,292 parameters of 4 bytes are 81.36 MB.
    row = RIGL | {"method": "DCTpS", "param_size_mb": 162.66, "trainable_parameters": 21_328_292}
    (sentence,) = explain_differences(CostRecord.model_validate(row), None)
    assert all(part in sentence for part in ("DCTpS", "162.66 MB", "DCT matrices", "81.36 MB"))
    assert explain_differences(CostRecord.model_validate(RIGL), None) == []


def test_a_hundredth_of_the_parameters_may_be_frozen_unsaid():
    # 99 MB of 100, and a parameter fewer.
    row = RIGL | {"param_size_mb": 100, "trainable_parameters": 99 * 2**18}
    assert explain_differences(CostRecord.model_validate(row), None) == []
    row |= {"trainable_parameters": 99 * 2**18 - 1}
    assert "frozen tensors" in explain_differences(CostRecord.model_validate(row), None)[0]


@pytest.mark.parametrize(("hours", "text"), [(0.25, "0.25"), (0.95, "0.95"), (0.96, "1.0"), (12.34, "12.3")])
def test_hours_have_as_many_digits_as_say_something(hours, text):
    assert f"| RigL | {text} |" in output([RIGL | {"hours_estimate": hours}]).md


def test_rows_may_stand_without_the_paper_and_without_timings():
    row = CostRecord(method="New <b>", param_size_mb=1.0, est_total_mb=2.0)
    result = render_cost([row], None, network="N", dataset="D")
    assert "| New &lt;b&gt; | n.a. | 1.00 | 2.00 |" in result.md
    assert "Nothing was timed." in result.md
    assert "<b>" not in result.html.replace("<b>Table 6.</b>", "")


def test_costs_are_written_a_key_a_line_and_read_as_they_were(tmp_path):
    text = costs_json([RIGL])
    assert text.startswith('[\n  {\n    "method": "RigL",\n')
    assert text.endswith("]\n")
    write_derived(tmp_path, {"cost/cost.json": text})
    assert read_costs(tmp_path / "cost" / "cost.json", Sources(tmp_path)) == [CostRecord.model_validate(RIGL)]


def test_a_bad_row_is_refused_by_place_and_key(tmp_path):
    write_derived(tmp_path, {"cost/cost.json": json.dumps([RIGL, RIGL | {"est_total_mb": None}])})
    with pytest.raises(EastError, match=r"cost\.json is not measured costs: 1\.est_total_mb"):
        read_costs(tmp_path / "cost" / "cost.json", Sources(tmp_path))
