import json

import pytest

from east.analysis.aggregate import table_json
from east.analysis.evidence import evidence_json, read_evidence
from east.analysis.sources import Request, Sources
from east.config import make_plan, read_config
from east.config.tables import Comparing, GridTable
from east.errors import EastError
from east.plugins import digest_of
from tests.unit.fake_report import write_derived
from tests.unit.fake_runs import PUBLISHED
from tests.unit.fake_tables import around, gather, paper, papers, summarised
from tests.unit.in_process import east


def test_evidence_survives_json(tmp_path):
    evidence = gather([summarised(grid, around()) for grid in papers()], PUBLISHED)
    assert evidence_json(evidence).startswith(b'{\n  "comparing": {\n    "margin": 2.0')
    write_derived(tmp_path, {"analysis/evidence.json": evidence_json(evidence)})
    assert read_evidence(tmp_path / "analysis" / "evidence.json", Sources(tmp_path)) == evidence
    assert evidence.comparisons[0].verdict == "reproduced"
    assert len(evidence.claims) == 5
    assert len(evidence.audit) == 7


def test_tables_of_ones_own_are_claimed_upon_but_compared_with_nothing():
    grid = paper("2")
    rows = tuple(row.model_copy(update={"published": None}) for row in summarised(grid, around()).rows)
    own = summarised(grid, around(), id="tableMine", published_table=None, comparable=False, rows=rows)
    evidence = gather([own], PUBLISHED)
    assert evidence.comparisons[0].verdict == "not comparable"
    assert {pair.table for pair in evidence.claims[0].ours.pairs} == {"tableMine"}


def test_without_tables_there_are_still_claims_and_audit():
    evidence = gather([], PUBLISHED)
    assert evidence.comparisons == ()
    assert (evidence.claims[0].published.agree, evidence.claims[0].ours.verdict) == (24, "no pairs")


def test_a_file_that_is_something_else_is_refused_by_name(tmp_path):
    path = tmp_path / "analysis" / "evidence.json"
    with pytest.raises(EastError, match=r"analysis/evidence cannot be used"):
        read_evidence(path, Sources(tmp_path))
    write_derived(tmp_path, {"analysis/evidence.json": json.dumps({"audit": []})})
    with pytest.raises(EastError, match=r"evidence\.json is not evidence"):
        read_evidence(path, Sources(tmp_path))


def test_the_configuration_says_how_to_compare(overlay):
    plan = make_plan(read_config(overlay("comparison: {margin: 1.5, published_spread: population}")))
    grids = [table for table in plan.tables if isinstance(table, GridTable)]
    assert {table.comparing for table in grids} == {Comparing(margin=1.5, published_spread="population")}


def test_the_command_writes_one_file(tmp_path):
    for grid in papers()[:2]:
        table = table_json(summarised(grid, around()))
        write_derived(tmp_path, {f"aggregate/table{grid.number}.json": table})
    asked = {"tables": ["table2", "table3"], "claims": [], "comparing": Comparing().model_dump()}
    request = Request(step="analyse", of=asked)
    done = east("make", "--results", tmp_path, "--request", request.text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    evidence = read_evidence(tmp_path / "analysis" / "evidence.json", Sources(tmp_path))
    assert [comparison.table for comparison in evidence.comparisons] == ["table2", "table3"]


FORM = """
from east.methods import claim_form


@claim_form
def first(rows, *, axis: str):
    return rows[["table"]].iloc[:1].assign(higher=rows.index[1], lower=rows.index[0])
"""


def asked_of_a_plugin(folder, source):
    """The step that tests a claim whose form a plugin has."""
    plugin = folder / "forms.py"
    plugin.write_text(source)
    form = {"name": "first", "axis": "cycles", "plugin": digest_of(plugin)}
    claim = {"id": "mine", "statement": "So.", "source": None, "form": form, "tables": [], "possibility": False}
    write_derived(folder, {"aggregate/table2.json": table_json(summarised(paper("2"), around()))})
    asked = {"tables": ["table2"], "claims": [claim], "comparing": Comparing().model_dump()}
    request = Request(step="analyse", of=asked)
    return east("make", "--results", folder, "--request", request.text, "--plugin", plugin)


def test_a_form_of_a_plugin_is_executed_by_the_step_that_tests_claims(tmp_path):
    done = asked_of_a_plugin(tmp_path, FORM)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json.loads((tmp_path / "analysis" / "evidence.json").read_text())["claims"]
    assert [pair["lower"] for pair in found["ours"]["pairs"]] == ["static"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("lower=rows.index[0]", "lower=-1", "forms.py:5: claim form 'first' gave -1, which is no label"),
        ("lower=rows", "smaller=rows", "forms.py:5: claim form 'first' must give a frame with the columns `higher`"),
        ("rows.index[1]", "rows.nothing", "forms.py:7: claim form 'first' failed on the claim 'mine': AttributeError"),
    ],
)
def test_a_form_that_is_wrong_is_named_with_its_line(tmp_path, old, new, complaint):
    done = asked_of_a_plugin(tmp_path, FORM.replace(old, new))
    assert done.returncode == 1
    assert complaint in done.stderr
