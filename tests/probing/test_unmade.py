"""One sample that cannot be made leaves its unit out, with a note that says which, for every model alike; everything
else goes on: a study from end to end, the probe while training, and the leakage check."""

import csv

import pytest

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.errors import EpisodeError
from lcprobe.files import read_json
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet, task_sets
from lcprobe.probing.runner import run_plan, score_unit
from lcprobe.probing.store import MemoryStore
from lcprobe.probing.unmade import NotMade, first_made
from lcprobe.schema import build
from lcprobe.studies.evaluation.leakage import run_policies
from lcprobe.tasks import TASKS
from tests.probing.test_runner import SUBJECT, ByPlace
from tests.tasks.checks import materials_for
from tests.tiny import write_config
from tests.toys.fussy import BAD_SAMPLE

LINE = {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}
SAID = (
    rf"sample {BAD_SAMPLE} at depth [0-9.]+ with tokenizer shipped'.*given 'one word too many'; allowed: fewer words"
)


@pytest.fixture(autouse=True)
def _fussy(monkeypatch):
    monkeypatch.setitem(TASKS, "fussy", "tests.toys.fussy:Fussy")


def config(**given):
    return build(ProbeConfig, {"tasks": {"fussy": {"type": "fussy"}, "single": LINE}, **given}, "probe")


def grids(n=BAD_SAMPLE + 1):
    """Two units of the fussy task, one of which is without the bad sample, and one of another."""
    given = [{"lengths": [2], "n": n}, {"tasks": ["fussy"], "lengths": [4], "n": BAD_SAMPLE}]
    return [build(Grid, {"value": ["words"], **one}, "grid") for one in given]


def test_the_others_are_scored_and_the_note_names_task_sample_tokenizer_and_reason(materials):
    tasks, store = TaskSet(config(), materials), MemoryStore()
    plan = tasks.plan(grids(), 64)
    assert {(unit.task, unit.length) for unit in plan.units} == {("fussy", 128), ("fussy", 256), ("single", 128)}
    made = run_plan(plan, tasks, ByPlace(), SUBJECT, store)
    assert {(unit.task, unit.length) for unit in made.values()} == {("fussy", 256), ("single", 128)}
    assert {(r["task"], r["length"]) for r in store.read(made).to_pylist()} == {("fussy", 256), ("single", 128)}
    (unit,) = tasks.not_made
    with pytest.raises(NotMade, match=r"^fussy corpus/-/words @128: given '" + SAID):
        score_unit(unit, tasks, ByPlace(), 500)
    again = ByPlace()
    assert run_plan(plan, tasks, again, SUBJECT, store) == made
    assert again.calls == 0


def test_a_unit_is_left_out_for_every_tokenizer_of_the_same_text(materials):
    own = [materials, materials_for(materials, "llama")]
    sets = task_sets(config(equal_length="text"), own, ["shipped", "llama"])
    (unit,) = [unit for unit in sets[0].plan(grids(), 64).units if (unit.task, unit.length) == ("fussy", 128)]
    assert not sets[1].can_make(unit)
    assert unit in sets[0].not_made


def test_the_leakage_check_goes_on(materials):
    tasks = TaskSet(config(), materials)
    units = tasks.plan(grids(n=4), 64).units
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lcprobe.probing.policies.cheating.seed_of", lambda *names: 0)
        table, notes = run_policies(tasks, units, 200, ["random_value"])
    assert {cell.task for cell in table} == {"single"}
    assert len(notes) == 2
    assert all("sample 30 " in note and note.startswith("fussy corpus/-/words @") for note in notes)


def test_what_no_sample_can_be_is_refused_and_what_some_can_be_is_not():
    def make(index):
        if index % 2:
            raise EpisodeError("formats", f"sample {index}", "an even one")
        return index

    assert first_made(make, 5) == [0, 2, 4]
    with pytest.raises(EpisodeError, match="sample 3"):
        first_made(lambda index: make(2 * index + 1), 2)


def test_a_study_from_end_to_end(tmp_path, data_settings, capsys):
    fussy = {"tasks": ["fussy"], "lengths": [2], "depths": 1, "value": ["words"], "n": BAD_SAMPLE + 1}
    probe = {
        "tasks": {"fussy": {"type": "fussy"}, "single": LINE},
        "grids": [fussy, {"tasks": ["single"], "lengths": [1], "depths": 1, "n": 3}],
        "context": None,
        "while_training": fussy,
    }
    train = {"tokens": 64 * 4 * 4, "context_length": 64, "batch_tokens": 256, "checkpoint_every": 64 * 4 * 4}
    written = write_config(tmp_path, data_settings, probe=probe, train=train)
    assert train_main([str(written)]) == 0
    said = f"fussy corpus/-/words @128: given 'sample {BAD_SAMPLE} "
    assert "left out of the probe while training: " + said in capsys.readouterr().err
    study = tmp_path / "runs" / "tiny"
    assert evaluate_main([str(study)]) == 0
    assert said in capsys.readouterr().out
    with open(study / "tables" / "cells.csv", newline="") as file:
        assert {(row["model"], row["task"]) for row in csv.DictReader(file)} == {
            (m, "single") for m in ("mamba2", "hybrid")
        }
    facts = read_json(study / "report.json")["study"]
    assert {row["task"] for row in facts["expected_cells"]} == {"single"}
    assert sum(said in note for note in facts["notes"]) == 1
    assert f"sample {BAD_SAMPLE}" in (study / "report.html").read_text()
