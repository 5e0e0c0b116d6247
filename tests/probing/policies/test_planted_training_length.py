"""Planted relations to the training length are recovered, from the records that the runner would have written."""

import pytest

from lcprobe.probing.policies.planted import Planted
from lcprobe.probing.runner import ProbedCheckpoint, run_plan
from lcprobe.probing.store import MemoryStore
from validation.planted import task_set
from validation.training_length import DESIGNS, RELATIONS, Answers, answers, concluded, plan_of, records_of

BY_NAME = {relation.name: relation for relation in RELATIONS}


@pytest.fixture(scope="module")
def small() -> Answers:
    tasks = task_set()
    return answers(tasks, plan_of(tasks, "single", 24), DESIGNS["single"].trained)


def test_records_are_those_that_the_runner_writes_for_each_model():
    tasks = task_set()
    plan = plan_of(tasks, "single", 2)
    made = records_of(answers(tasks, plan, DESIGNS["single"].trained), BY_NAME["length <= 2 x trained"], 0)
    scorer = Planted(lambda item: float(len(item.episode.ids) <= 2 * 128), tasks.materials.tokenizer)
    store, names = MemoryStore(), [name for name in made.column_names if name not in ("model", "checkpoint")]
    ids = run_plan(plan, tasks, scorer, ProbedCheckpoint("L128-1", "0" * 16, 1, 1), store, batch_tokens=1 << 20)
    own = [row for row in made.to_pylist() if row["model"] == "L128-1"]
    for row, expected in zip(own, store.read(ids).to_pylist(), strict=True):
        assert {name: row[name] for name in names} == {name: expected[name] for name in names}


@pytest.mark.parametrize("name", ["length <= 2 x trained", "length <= 256", "perfect", "flat noise 0.6"])
def test_the_report_says_what_was_planted_and_nothing_about_noise(small, name):
    result = concluded(small, BY_NAME[name], 0, whole=False)
    assert result.fit.verdict in BY_NAME[name].allowed
