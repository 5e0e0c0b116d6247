"""What W&B gets of an evaluation: the numbers of the report, under the same names for every model."""

import pytest

from lcprobe.analysis.findings.results import analyse
from lcprobe.studies.tracking.eval_values import LENGTH, eval_curves, eval_summary, unsaid
from tests.analysis.fabricated import flat, plan, records, run, study, task, window

LENGTHS = [256, 512, 1024]


@pytest.fixture(scope="module")
def results():
    """Two models on two tasks, one of them in two formats, with a control at one length."""
    cells = [
        *plan(["single"], [("corpus", "words", "numbers"), ("corpus", "words", "words")], LENGTHS, n=40),
        *plan(["multikey"], lengths=LENGTHS, n=40),
        *plan(["multikey"], lengths=[256], n=40, control="wrong_key"),
    ]
    runs = [run("far", context_length=512), run("near", context_length=512)]
    facts = study(runs, [task("single"), task("multikey", 4)], cells)
    return analyse(facts, records({"far": flat(0.9), "near": window(300)}, cells))


def test_every_model_has_the_same_names(results):
    names = [set(eval_summary(results, model)) for model in ("far", "near")]
    lost = {name for name in names[0] ^ names[1] if "effective_length" not in name}
    assert lost == set()
    for name in ("single@256", "single/corpus-words-words@1024", "multikey@512", "multikey/wrong_key@256"):
        assert {f"eval/{name}", f"eval/{name}/low", f"eval/{name}/high", f"eval/{name}/n"} <= names[0]
    assert "eval/multikey/chance" in names[0]


def test_values_are_those_of_the_report(results):
    for model in ("far", "near"):
        values = eval_summary(results, model)
        for found in results.extrapolations:
            if found.where.model == model and found.where.task == "multikey":
                assert values.get("eval/multikey/effective_length") == found.effective
                for length, estimate, _ in found.by_length:
                    at = f"eval/multikey@{length}"
                    assert values[at] == estimate.value
                    assert (values[f"{at}/low"], values[f"{at}/high"]) == (estimate.low, estimate.high)
                    assert values[f"{at}/low"] <= values[at] <= values[f"{at}/high"]


def test_a_curve_has_several_lengths_and_unsaid_by_the_summary_of_its_evaluation(results):
    rows, values = eval_curves(results, "near"), eval_summary(results, "near")
    assert [row[LENGTH] for row in rows] == LENGTHS
    assert all({"eval/multikey/accuracy", "eval/single/accuracy"} < set(row) for row in rows)
    assert not any("wrong_key" in name for row in rows for name in row), "one length is no curve"
    assert rows[0]["eval/multikey/accuracy"] > rows[-1]["eval/multikey/accuracy"]
    assert not any(unsaid(row, values) for row in rows)
    assert set(unsaid(rows[0], {**values, "eval/multikey@256": 2.0})) == {LENGTH, "eval/multikey/accuracy"}
    assert [unsaid(row, eval_summary(results, "far")) for row in rows[1:]] == rows[1:]
    trained = {"tokens": 5, "train/loss": 1.0}
    assert unsaid(trained, values) == trained
