"""One run of several (study.run), as agents of a W&B sweep train it, by workers of its own: the folder's status knows
it, and its workers train no other."""

import os

import pytest

from lcprobe.cli.commands import main
from lcprobe.config import load
from lcprobe.errors import DataError
from lcprobe.studies.launchers import launch
from lcprobe.studies.launchers.config import LocalConfig
from lcprobe.studies.launchers.contract import Task
from lcprobe.studies.launchers.local import Local
from lcprobe.studies.launchers.watching.state import study_state
from lcprobe.studies.launchers.work import worker
from lcprobe.studies.launchers.work.orders import TrainOrder, add_to_order, write_order
from lcprobe.studies.training.train_study import print_plan
from tests.tiny import write_config

ALONE = ["grid=_drop_", "model.layout=mamba2", "match.budget=null"]


@pytest.fixture
def config(tmp_path, data_settings):
    return write_config(tmp_path, data_settings, probe={"while_training": None}, train={"tokens": 512})


def mapping_of(config, *words):
    return load([str(config)], [*ALONE, *words])


def test_status_knows_the_runs_that_were_begun_one_by_one(config):
    study = config.parent / "runs" / "tiny"
    print_plan(mapping_of(config, "study.run=a"))
    with pytest.raises(DataError, match="nothing is known"):
        study_state(study)
    for name in ("a", "b", "a"):
        print_plan(mapping_of(config, f"study.run={name}"), write=True)
    assert [(unit.name, unit.state) for unit in study_state(study).units] == [("a", "waiting"), ("b", "waiting")]
    before = {unit.name: unit.total for unit in study_state(study).units}
    print_plan(mapping_of(config, "study.run=a", "train.tokens=2048"), write=True)
    now = {unit.name: unit.total for unit in study_state(study).units}
    assert now == {"a": 4 * before["a"], "b": before["b"]}, "it had not begun: it is trained as it is given now"


def test_an_order_of_one_run_keeps_those_before_and_a_worker_takes_its_own(config, monkeypatch):
    study, taken = config.parent / "runs" / "tiny", []
    orders = []
    for name in ("a", "b"):
        mapping = mapping_of(config, f"study.run={name}")
        print_plan(mapping, write=True)
        orders.append(add_to_order(study, TrainOrder(0, 2, {name: mapping})))
    assert [(order.launch, [*order.trials]) for order in orders] == [(1, ["a"]), (2, ["a", "b"])]
    monkeypatch.setattr(
        worker, "train_units", lambda plans, rules, report, wanted: taken.append((plans, wanted)) or {}
    )
    assert worker.work(study, ["train", "b"]) == 0
    ((plans, wanted),) = taken
    assert ([run.name for plan in plans for run in plan.runs], wanted) == (["b"], {"b"})
    assert [*write_order(study, TrainOrder(0, 2, {"c": {}})).trials] == ["c"], "a whole sweep is all that there is"


def test_a_fault_of_the_display_ends_no_launch(tmp_path, caplog):
    """The folder says nothing of what there is to do."""
    local = Local(LocalConfig(1), [])
    local.places = lambda task: 0
    task = Task(tmp_path, ("train",), 1, 1, tmp_path / "logs")
    assert launch._start(local, task, lambda place: False, lambda: 0.0, lambda *died: None, "train")
    assert "nothing is known of what there is to do" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("agent", [False, True])
def test_a_run_of_its_own_is_trained_by_workers(config, agent, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), f"{os.getcwd()}/kernels"]))
    if agent:
        monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
        monkeypatch.setenv("WANDB_RUN_ID", "xyz")
    words = [] if agent else ["study.run=xyz"]
    assert main(["train", str(config), *ALONE, *words, "launcher=local", "launcher.workers=1"]) == 0
    study = config.parent / "runs" / "tiny"
    assert [(unit.name, unit.state) for unit in study_state(study).units] == [("xyz", "done")]
    assert main(["status", str(study)]) == 0
    assert "1 done" in capsys.readouterr().out
