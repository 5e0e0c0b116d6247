"""From records to cells and slices: what counts as a trial, and when a mean is unavailable."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from lcprobe.analysis.findings.cells import PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.errors import DataError
from lcprobe.tasks.episode import Formats
from tests.analysis.fabricated import FORMAT, flat, plan, records, run, study, task, with_column

WHERE = PanelKey("m", "single", Formats(*FORMAT))
CELLS = plan(["single"], lengths=[32, 64], depths=[0.0, 0.5, 1.0], n=40)
STUDY = study([run("m")], [task("single")], CELLS)


def test_cells_are_counted_as_by_hand():
    table = records({"m": flat(0.6)}, CELLS)
    exact = table.to_pandas()
    for cell in load_records(STUDY, table).cells():
        own = exact[(exact.length == cell.length) & (exact.depth == cell.depth)]
        interval = stats.binomtest(int(own.exact.sum()), len(own)).proportion_ci(0.95, method="wilson")
        assert (cell.k, cell.n, cell.samples, cell.n_failed) == (own.exact.sum(), 40, 40, 0)
        assert (cell.low, cell.high) == pytest.approx((interval.low, interval.high))
        assert cell.means["token_accuracy"] == pytest.approx(own.token_accuracy.mean())
        assert cell.means["log_likelihood_per_token"] == pytest.approx(
            (own.log_likelihood / own.answer_tokens).mean()
        )
        assert cell.skill is None  # one value in the context: chance is 1


def test_skill_has_the_bounds_of_accuracy_above_chance():
    cells = plan(["multikey"], lengths=[64], depths=[0.5], n=80)
    (cell,) = load_records(study([run("m")], [task("multikey", 4)], cells), records({"m": flat(0.7)}, cells)).cells()
    assert cell.means["chance"] == 0.25
    assert cell.skill == pytest.approx((cell.accuracy - 0.25) / 0.75)
    assert cell.skill_bounds == pytest.approx(((cell.low - 0.25) / 0.75, (cell.high - 0.25) / 0.75))


def test_a_missing_cell_and_a_missing_sample_both_refuse_the_mean():
    table = records({"m": flat(0.6)}, CELLS)
    here = np.array(table["length"]) == 32
    holes = {
        "cell": here & (np.array(table["depth"]) == 0.5),
        "sample": here & (np.array(table["depth"]) == 0.5) & (np.array(table["index"]) == 7),
    }
    for hole in holes.values():
        data = load_records(STUDY, table.filter(pa.array(~hole)))
        assert data.slice(WHERE, 32) == Unavailable("incomplete (2 of 3 cells)")
        assert isinstance(data.slice(WHERE, 64), Slice)
    assert load_records(STUDY, table.slice(0, 0)).slice(WHERE, 32) == Unavailable("incomplete (0 of 3 cells)")
    assert load_records(STUDY, table).slice(WHERE, 128) == Unavailable("not planned")


def test_failed_rows_are_counted_but_not_as_trials():
    table = records({"m": flat(1.0)}, CELLS)
    failed = (np.array(table["length"]) == 64) & (np.array(table["index"]) < 3)
    table = with_column(table, "status", np.where(failed, "oom", "ok"))
    table = with_column(table, "exact", pa.array(np.ones(len(table), bool), mask=failed))
    data = load_records(STUDY, table)
    assert data.n_failed == 9
    assert {(c.length, c.k, c.n, c.n_failed) for c in data.cells()} == {(32, 40, 40, 0), (64, 37, 37, 3)}
    assert data.slice(WHERE, 64) == Unavailable("incomplete (0 of 3 cells)")


def test_slices_average_over_cells_of_unequal_plan_by_their_shared_samples():
    cells = [cell | {"n": 60 if cell["depth"] == 0.5 else 40} for cell in CELLS]
    part = load_records(study([run("m")], [task("single")], cells), records({"m": flat(0.5)}, cells)).slice(WHERE, 32)
    assert isinstance(part, Slice)
    assert part.trials.shape == (3, 40)


def test_questions_of_one_episode_are_one_cluster():
    cells = plan(["single"], lengths=[32], depths=[0.5], n=50)
    table = records({"m": lambda c: (c["index"] % 2).astype(float)}, cells, queries=4)
    (cell,) = load_records(study([run("m")], [task("single")], cells), table).cells()
    assert (cell.k, cell.n, cell.samples) == (100, 200, 50)
    assert cell.low is not None
    assert 0.5 - cell.low > 0.12  # as for 50 trials, not for 200 (0.07)


def test_the_last_step_counts_and_unknown_models_do_not():
    early = with_column(records({"m": flat(0.0)}, CELLS), "step", np.full(240, 10))
    late, unknown = records({"m": flat(1.0)}, CELLS), records({"other": flat(1.0)}, CELLS)
    data = load_records(STUDY, pa.concat_tables([early, late, unknown]))
    assert {cell.k for cell in data.cells()} == {40}
    assert any("earlier checkpoints" in note for note in data.notes)
    assert any("outside the study" in note for note in data.notes)


def test_teacher_forcing_goes_before_generation_and_repeats_are_an_error():
    table = records({"m": flat(0.5)}, CELLS)
    generated = with_column(table, "scoring", np.full(len(table), "generate"))
    assert sum(cell.n for cell in load_records(STUDY, pa.concat_tables([table, generated])).cells()) == 240
    with pytest.raises(DataError, match="240 queries occur more than once"):
        load_records(STUDY, pa.concat_tables([table, table]))


def test_records_that_cannot_be_counted_are_refused_in_one_line():
    table = records({"m": flat(0.5)}, CELLS)
    with pytest.raises(DataError, match="columns exact are missing"):
        load_records(STUDY, table.drop_columns(["exact"]))
    with pytest.raises(DataError, match="suites 1, 2"):
        load_records(STUDY, pa.concat_tables([table, with_column(table, "suite", np.full(240, "2"))]))


def test_records_of_other_code_of_a_task_are_left_out_and_named():
    """An edited wording keeps its task's name; its records must not be paired with those of the old one."""
    old = records({"m": flat(0.0)}, CELLS)
    new = with_column(records({"m": flat(1.0)}, CELLS), "task_code", np.full(240, "0ddc0de"))
    both = pa.concat_tables([old, new])
    (own,) = STUDY.tasks
    data = load_records(replace(STUDY, tasks=[replace(own, code="0ddc0de")]), both)
    assert {cell.k for cell in data.cells()} == {cell.n for cell in data.cells()} == {40}
    assert f"{own.name}: 240 rows of other code of the task ({'c0de' * 4}; now 0ddc0de) are left out" in data.notes
    assert not load_records(replace(STUDY, tasks=[replace(own, code="c0de" * 4)]), old).notes
    with pytest.raises(DataError, match=f"^records: given several versions of the code of {own.name}; allowed: one"):
        load_records(STUDY, both)
