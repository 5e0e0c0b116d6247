"""`lcprobe status` says what the files of a study say, and changes none of them."""

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lcprobe.cli.commands import main
from lcprobe.errors import DataError
from lcprobe.locks import OWNER, Claims, folder_lock, this_process
from lcprobe.probing.store import Store, unit_id
from lcprobe.studies.launchers.watching import state
from lcprobe.studies.launchers.watching.state import study_state
from lcprobe.studies.launchers.work.failures import append_failure, failure_of
from lcprobe.studies.launchers.work.orders import ProbeOrder, TrainOrder, probe_order, train_order, write_order
from lcprobe.studies.launchers.work.reports import Reporter
from lcprobe.studies.status import read_status

HERE = this_process()


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def study(tmp_path) -> Path:
    folder = tmp_path / "runs" / "s"
    kinds = {"t": "trial", "a": "run", "b": "run", "c": "run", "d": "run"}
    units = [
        {"kind": kind, "name": name, "group": name, "folder": f"sweep/{name}" if kind == "trial" else name, "flops": 10.0, "steps": 40, "tokens": 400, "settings": "x"}
        for name, kind in kinds.items()
    ]  # fmt: skip
    write(folder / "work" / "train_units.json", {"units": units})
    write_order(folder, TrainOrder(retries=1))
    write(folder / "a" / "status.json", {"status": "done", "step": 40, "seconds": 20.0})
    write(folder / "b" / "checkpoints" / "step-00000010" / "state.json", {"step": 10, "seconds": 5.0})
    (folder / "b" / "checkpoints" / "step-00000020").mkdir()
    (folder / "b" / "checkpoints" / "step-00000020" / "state.json").write_text("{")
    append_failure(folder / "c" / "failures.jsonl", failure_of("c", HERE, 74, "no disk", 0, 1, "x"))
    append_failure(folder / "sweep" / "t" / "failures.jsonl", failure_of("t", HERE, 4, "not finite", 0, 1, "x"))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_units_are_done_running_failed_or_waiting(study, capsys):
    report = Reporter(study, clock=lambda: 0.0)
    report.clock = iter([0.0, 10.0, 20.0, 30.0, 40.0]).__next__
    with folder_lock(study / "b"):
        report.begin("train", "b")
        report.at(done=12, total=40, first=10, seconds=1.0, tokens_per_second=20.0, loss=3.5)
        before = files(study)
        assert main(["status", str(study), "--json"]) == 0
        assert main(["status", str(study)]) == 0
        assert files(study) == before
    state, text = capsys.readouterr().out.split("\n", 1)
    facts = json.loads(state)
    by_name = {unit["name"]: unit for unit in facts["units"]}
    assert {name: unit["state"] for name, unit in by_name.items()} == {
        "t": "done", "a": "done", "b": "running", "c": "waiting", "d": "waiting"
    }  # fmt: skip
    running = by_name["b"]
    assert (running["done"], running["total"], running["tokens_per_second"], running["loss"]) == (12, 40, 20.0, 3.5)
    assert [(w["host"], w["pid"]) for w in running["workers"]] == [(HERE.host, os.getpid())]
    # b: 28 steps at 2 a second; c and d as a and b together: 20 s and 20 s for 20 FLOPs; one worker
    assert facts["eta_seconds"] == pytest.approx(14 + 2 * 10 * (20 + 20) / 20)
    assert facts["share"] == pytest.approx((10 + 10 * 12 / 40) / 50)
    assert by_name["c"]["failures"] == 1
    assert f"process {os.getpid()} on {HERE.host}" in text
    assert "c: no disk (exit code 74)" in text
    assert text.splitlines()[-1].startswith(f"{study}: 2 done, 1 running, 0 failed, 2 waiting, 26%; 0:54 left")


def test_what_is_given_up_is_failed_until_the_next_launch(study):
    append_failure(study / "c" / "failures.jsonl", failure_of("c", HERE, None, "its process is gone", 0, 1, "x"))
    of = lambda: {unit.name: unit.state for unit in study_state(study).units}  # noqa: E731
    assert of()["c"] == "failed"
    write_order(study, TrainOrder(retries=1))
    assert of()["c"] == "waiting"
    assert of()["t"] == "done", "a rate at which a trial diverges is a result"
    append_failure(study / "d" / "failures.jsonl", failure_of("d", HERE, 4, "not finite", 3, 1, "x"))
    d = next(unit for unit in study_state(study).units if unit.name == "d")
    assert d.state == "failed"
    assert f"or once {study}/d/failures.jsonl is deleted" in d.why
    path = study / "work" / "train_units.json"
    path.write_text(path.read_text().replace('"x"', '"other guards"'))
    assert of()["d"] == of()["t"] == "waiting", "other settings"


def test_a_dead_process_runs_nothing(study):
    dead = replace(HERE, started=HERE.started - 1)
    (study / "b" / ".owner").write_text(json.dumps(asdict(dead)))
    write(study / "work" / "workers" / "x.json", {"process": asdict(dead), "kind": "train", "unit": "b", "total": 40})
    state = study_state(study)
    assert {unit.name: (unit.state, unit.done) for unit in state.units}["b"] == ("waiting", 10)
    assert state.idle == 0


def test_models_of_a_probe(tmp_path):
    folder, ids = tmp_path / "p", [unit_id({"n": n}) for n in range(3)]
    model = {"units": dict.fromkeys(ids, 100), "groups": ["g1", "g2"], "text": "", "unmade": []}
    models = [{"name": name, **model, "notes": f"models/{name}.json"} for name in ("a", "b")]
    models[1]["units"] = {unit_id({"other": n}): 100 for n in range(2)}
    models[1]["groups"] = ["g3"]
    write(folder / "work" / "probe_units.json", {"models": models})
    store = Store(folder / "records")
    store.finish(ids[0], [], {"task": "t"})
    claim = Claims(folder / "records").take("g2")
    a, b = study_state(folder).units
    assert (a.state, a.done, a.total, a.share) == ("running", 1, 3, pytest.approx(1 / 3))
    assert [(w.host, w.pid) for w in a.workers] == [(HERE.host, os.getpid())]
    assert (b.state, b.done) == ("waiting", 0)
    for one in ids[1:]:
        store.finish(one, [], {"task": "t"})
    write(folder / "models" / "a.json", {})
    claim.release()
    assert study_state(folder).units[0].state == "done"


def test_orders_are_read_as_they_were_written(tmp_path):
    assert (train_order(tmp_path), probe_order(tmp_path)) == (None, None)
    settings = (("", {"probe": {"n": 3}, "x": ["${a.b}"]}), ("probe.grids[0].n", 5))
    order = write_order(tmp_path, ProbeOrder(0, 3, ("runs/a",), ("hf:o/n",), None, settings))
    assert probe_order(tmp_path) == order
    assert order.laid_on.layers == settings
    first, second = (write_order(tmp_path, TrainOrder(0, 1, {"t": {"seed": 1}})) for _ in range(2))
    assert (first.launch, second.launch) == (1, 2)
    assert train_order(tmp_path) == second
    (tmp_path / "work" / "train.json").write_text("[")
    assert main(["work", str(tmp_path), "--units", "train"]) == 2


def test_units_that_a_study_does_not_have_are_named(study, capsys):
    for wanted, near in ((["nosuch"], ""), (["probe"], ""), (["train", "aa"], "; did you mean 'a'?")):
        assert main(["work", str(study), "--units", *wanted]) == 2
        line = f"error: --units: given '{wanted[-1]}'; allowed: train | t | a | b | c | d{near}\n"
        assert capsys.readouterr().err == line
    write_order(study, ProbeOrder())
    model = {"name": "m", "units": {}, "groups": [], "text": "", "unmade": [], "notes": "m.json"}
    write(study / "work" / "probe_units.json", {"models": [model]})
    assert main(["work", str(study), "--units", "nosuch"]) == 2
    assert "allowed: train | t | a | b | c | d | probe | m" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["train", "probe"])
@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{}", '{"units": [3], "models": [3]}', '{"units": {}, "models": null}',
             '{"units": [{}], "models": [{"name": "a"}]}'],
)  # fmt: skip
def test_files_of_another_form_are_named_in_one_line(study, capsys, kind, text):
    path = study / "work" / f"{kind}_units.json"
    path.write_text(text)
    code, error = main(["status", str(study)]), capsys.readouterr().err
    assert code == 2
    assert error == f"error: {path}: not readable; allowed: the command again, which writes it\n"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"status": "done", "step": "x"}'])
def test_a_damaged_status_of_a_run_is_said(study, capsys, text):
    path = study / "a" / "status.json"
    path.write_text(text)
    assert main(["status", str(study)]) == 0
    assert f"a: {path} is damaged: not known to be done" in " ".join(capsys.readouterr().out.split())
    if "step" not in text:
        with pytest.raises(DataError, match="delete it"):
            read_status(study / "a")


@pytest.mark.parametrize(
    "words", [["status"], ["status", "nowhere"], ["work"], ["work", ".", "--units"], ["status", ".", "--yes"]]
)
def test_command_lines_that_cannot_be(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("wrong", [-400.0, 400.0])
@pytest.mark.parametrize("seen", [True, False])
def test_the_clock_of_the_machine_that_looks_changes_nothing(study, monkeypatch, wrong, seen):
    """Heartbeats are as old as the disk says; who is seen alive is not gone without one."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + wrong)
    if not seen:  # a process of another machine
        monkeypatch.setattr(state, "gone_from", lambda who, path: None)
        monkeypatch.setattr(state, "is_gone", lambda who: None)
    with folder_lock(study / "b"):
        owner = study / "b" / OWNER
        of = lambda: next(unit for unit in study_state(study).units if unit.name == "b")  # noqa: E731
        assert of().state == "running"
        assert all(worker.beat is None or worker.beat < 60 for worker in of().workers)
        long_ago = real() - 1000
        os.utime(owner, (long_ago, long_ago))
        assert of().state == ("running" if seen else "waiting")


def test_json_has_no_nan(study, capsys):
    report = Reporter(study)
    with folder_lock(study / "b"):
        report.begin("train", "b")
        report._write(replace(report._now, done=12, total=40, loss=float("nan")))
        assert main(["status", str(study), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert next(unit for unit in facts["units"] if unit["name"] == "b")["loss"] is None
