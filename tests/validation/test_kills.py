"""The comparison of `python -m validation kills` notices what a kill may do, and kills do none of it."""

from dataclasses import replace

import pytest
import torch

from validation.kills import measure
from validation.kills.outcome import Outcome, RunOutcome, compare

ROWS = [{"tokens": 256.0 * step, "train/loss": 8.0 / step} for step in (1, 2, 3)]
CURVE = [{"eval/length": 64.0, "eval/a/accuracy": 0.5}, {"eval/length": 128.0, "eval/a/accuracy": 0.25}]
RUN = RunOutcome(3, "5eed", {"model a": torch.ones(2, 2)}, ROWS, [*ROWS, *CURVE], frozenset({"data_digest"}), 0)
WHOLE = Outcome({"mamba2": RUN}, ["one", "two"])


def of(**changes) -> Outcome:
    return replace(WHOLE, runs={"mamba2": replace(RUN, **changes)})


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (of(tensors={"model a": torch.ones(2, 2) + 1e-7}), "weights or moments differ"),
        (of(data_digest="other"), "other batches"),
        (of(rows=[*ROWS, ROWS[-1]]), "metrics.csv: 1 rows too many"),
        (of(rows=[ROWS[0], {**ROWS[1], "train/loss": 4.0000001}, ROWS[2]]), "metrics.csv: 1 rows with other values"),
        (of(rows=[ROWS[1], ROWS[0], ROWS[2]]), "another order"),
        (of(history=[*ROWS, *ROWS[2:], *CURVE]), "W&B: 1 rows too many"),
        (of(history=[*ROWS[:2], *CURVE]), "W&B: 1 rows missing"),
        (of(history=[*ROWS, *CURVE, *CURVE]), "W&B: 2 rows too many"),
        (of(history=[*ROWS, CURVE[0]]), "W&B: 1 rows missing"),
        (of(summary=frozenset()), "W&B lacks ['data_digest']"),
        (replace(WHOLE, records=["one"]), "1 of 2 lost or other, 0 twice"),
        (replace(WHOLE, records=["one", "two", "two"]), "0 of 2 lost or other, 1 twice"),
        (replace(WHOLE, runs={}), "runs [] for ['mamba2']"),
    ],
)
def test_what_is_not_as_in_the_uninterrupted_study_is_said(own, said):
    (fault,) = compare(own, WHOLE).faults
    assert said in fault


def test_another_division_may_round_otherwise_and_no_more():
    near = of(
        tensors={"model a": torch.ones(2, 2) + 1e-6},
        rows=[{**row, "train/loss": row["train/loss"] * (1 + 1e-7)} for row in ROWS],
    )
    assert compare(WHOLE, WHOLE).faults == []
    assert len(compare(near, WHOLE).faults) == 2
    assert compare(near, WHOLE, exact=False).faults == []
    assert compare(of(tensors={"model a": torch.ones(2, 2) + 1e-4}), WHOLE, exact=False).faults != []


@pytest.mark.slow
def test_a_study_that_is_killed_is_the_uninterrupted_one():
    rows = measure({"n": "6", "steps": "24", "kinds": "one process;in a save;at a run's end;fsdp2, 2 ranks"})
    assert sum(row["kills"] for row in rows) >= 6
    assert {row["kind"]: row["faults"] for row in rows} == {row["kind"]: "none" for row in rows}
