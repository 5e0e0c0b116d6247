"""Resuming: after kill -9, signals and damaged checkpoints a run ends bit-identical to an uninterrupted one."""

import os
import random
import shutil
import signal
import time
from collections import Counter

import pytest
from safetensors.torch import load_file

from lcprobe import files
from lcprobe.cli.commands import train_main
from lcprobe.files import digest_file, read_json
from lcprobe.studies.tracking import read_metrics
from lcprobe.training import saving
from lcprobe.training.checkpoint import damage_of
from lcprobe.training.module import Training
from tests.tiny import killed_until_done, start, write_config

RUN = "tiny/hybrid"
GRID = {"arch": {"hybrid": {"model": {"layout": "attention+mlp, mamba2"}}}}
TIMES = ("train/tokens_per_second",)


def outcome(folder):
    """Final weights, the digest of the data, and every metric except times."""
    run = folder / "runs" / RUN
    status = read_json(run / "status.json")
    metrics = [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(run / "metrics.csv")]
    steps = [row["step"] for row in metrics if "step" in row]
    assert steps == sorted(set(steps)), "no step is logged twice"
    weights = digest_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors")
    return {"weights": weights, "data": status["data_digest"], "metrics": metrics, "tokens": status["tokens"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_settings):
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    config = write_config(folder, data_settings, grid=GRID, match={"budget": None}, model=MODEL)
    process = start("train_main", [str(config)], folder / "log")
    process.join(120)
    assert process.exitcode == 0, (folder / "log").read_text()
    return folder


@pytest.fixture(scope="module")
def uninterrupted(whole):
    return outcome(whole)


MODEL = {"d_ff": 24}


def fresh(tmp_path, data_settings, **changes):
    return write_config(tmp_path, data_settings, grid=GRID, match={"budget": None}, model=MODEL, **changes)


def finished(tmp_path, whole, data_settings):
    """The config of a copy of the run that nothing interrupted."""
    shutil.copytree(whole / "runs", tmp_path / "runs")
    return fresh(tmp_path, data_settings)


def test_killed_at_random_and_resumed_equals_uninterrupted(tmp_path, data_settings, uninterrupted):
    config = fresh(tmp_path, data_settings)
    dice = random.Random(7)
    growth = [dice.randrange(1, 900) for _ in range(5)]  # a row of metrics is about 120 bytes
    metrics = tmp_path / "runs" / RUN / "metrics.csv"
    kills = killed_until_done("train_main", [str(config)], tmp_path / "log", metrics, growth)
    assert kills >= 3, "the test must interrupt something"
    assert outcome(tmp_path) == uninterrupted


def test_another_checkpoint_interval_changes_nothing(tmp_path, data_settings, uninterrupted):
    config = fresh(tmp_path, data_settings)
    process = start("train_main", [str(config), "train.checkpoint_every=1792", "train.keep=5"], tmp_path / "log")
    process.join(120)
    assert outcome(tmp_path) == uninterrupted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_end_of_the_step_and_the_same_command_resumes(
    tmp_path, data_settings, uninterrupted, number
):
    config = fresh(tmp_path, data_settings)
    process = start("train_main", [str(config), "train.checkpoint_every=1000000"], tmp_path / "log")
    metrics = tmp_path / "runs" / RUN / "metrics.csv"
    while not metrics.exists() and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == {signal.SIGTERM: 75, signal.SIGINT: 130}[number], (tmp_path / "log").read_text()
    saved = list((tmp_path / "runs" / RUN / "checkpoints").glob("step-*"))
    assert len(saved) == 1, "saved though no interval was due"
    killed_until_done("train_main", [str(config)], tmp_path / "log")
    assert outcome(tmp_path) == uninterrupted


def sabotage(checkpoint, kind):
    path = checkpoint / "model.safetensors"
    data = bytearray(path.read_bytes())
    if kind == "bit":
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    elif kind == "truncated":
        path.write_bytes(data[: len(data) // 3])
    elif kind == "missing":
        (checkpoint / "optimizer.safetensors").unlink()
    else:
        (checkpoint / "manifest.json").write_text("")


@pytest.mark.parametrize(
    "kind", ["bit", "missing", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("truncated", "no manifest"))]
)
def test_a_damaged_newest_checkpoint_is_renamed_and_the_previous_one_used(
    tmp_path, data_settings, whole, uninterrupted, kind
):
    config = finished(tmp_path, whole, data_settings)
    run = tmp_path / "runs" / RUN
    newest = max((run / "checkpoints").glob("step-*"))
    sabotage(newest, kind)
    killed_until_done("train_main", [str(config)], tmp_path / "log")
    assert outcome(tmp_path) == uninterrupted
    assert (run / "checkpoints" / f"bad-{newest.name}").is_dir()
    assert f"{newest.name} is damaged" in (tmp_path / "log").read_text()


def test_damaged_checkpoints_alone_are_exit_5_and_never_a_restart(tmp_path, data_settings, whole, capsys):
    config = finished(tmp_path, whole, data_settings)
    folder = tmp_path / "runs" / RUN / "checkpoints"
    for checkpoint in folder.glob("step-*"):
        sabotage(checkpoint, "bit")
    capsys.readouterr()
    assert train_main([str(config)]) == 5
    assert "no valid checkpoint" in capsys.readouterr().err
    assert train_main([str(config)]) == 5, "and again, though they were set aside"


def test_another_configuration_in_the_same_folder_is_refused(tmp_path, data_settings, whole, capsys):
    config = finished(tmp_path, whole, data_settings)
    capsys.readouterr()
    for change, key in (
        ("train.lr=0.02", "train.lr"),
        ("seed=1", "seed"),
        ("data.answer_weight=2", "data.answer_weight"),
    ):
        assert train_main([str(config), change]) == 2
        assert f"error: {key}: given" in capsys.readouterr().err
    assert train_main([str(config), "train.log_every=5"]) == 0, "what changes no result may change"


def test_a_corpus_edited_in_the_middle_of_a_run_is_refused(tmp_path, data_settings, capsys):
    text = tmp_path / "corpus.txt"
    settings = {"corpus": [str(text)], "folder": str(tmp_path / "data"), "held_out": 0.2, "haystack_chars": 20_000}
    prose = [f"Chapter {i}. " + f"The {i}th river runs to the sea past mill and meadow. " * 40 for i in range(20)]
    text.write_text("\n\n".join(prose))
    config = fresh(tmp_path, {**data_settings, **settings})
    process = start("train_main", [str(config)], tmp_path / "log")
    checkpoints = tmp_path / "runs" / RUN / "checkpoints"
    while not list(checkpoints.glob("step-*")) and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    before = read_json(max(checkpoints.glob("step-*")) / "state.json")["corpus_digest"]

    os.utime(text)  # the same text in a newer file is the same corpus
    assert start_and_wait([str(config)], tmp_path) == 0
    text.write_text("\n\n".join([*prose[:-1], "Nothing but a late insertion, " * 100]))
    # refused again, and for a finished run too, also by workers: a study would compare models of two corpora
    for by in (["launcher=local"], []):
        capsys.readouterr()
        assert train_main([str(config), *by]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("error: ")
        assert f"trained on corpus {before[:16]}, data.corpus is now " in message
        shutil.rmtree(max(checkpoints.glob("step-*")))  # the last one: from here on the run is unfinished
    text.write_text("\n\n".join(prose))
    assert start_and_wait([str(config)], tmp_path) == 0


def test_the_resolved_config_reproduces_the_run(tmp_path, data_settings, uninterrupted):
    config = fresh(tmp_path, data_settings)
    assert start_and_wait([str(config)], tmp_path) == 0
    copy = tmp_path / "copy.yaml"
    shutil.copy(tmp_path / "runs" / RUN / "config.yaml", copy)
    assert start_and_wait([str(copy), f"study.folder={tmp_path / 'again'}"], tmp_path) == 0
    a = load_file(max((tmp_path / "again" / RUN / "checkpoints").glob("step-*")) / "model.safetensors")
    b = load_file(max((tmp_path / "runs" / RUN / "checkpoints").glob("step-*")) / "model.safetensors")
    assert all((a[k] == b[k]).all() for k in b)
    assert outcome(tmp_path) == uninterrupted


def start_and_wait(arguments, folder):
    process = start("train_main", arguments, folder / "log")
    process.join(120)
    return process.exitcode


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"switch": {"at": 0.5, "positional": "none"}}, id="switch"),
        pytest.param(
            {"length_schedule": [{"until": 0.6, "length": "32t"}, {"length": 1}]},
            id="lengths",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_resumed_run_changes_its_encodings_and_lengths_at_the_same_step(tmp_path, data_settings, change):
    data = {**data_settings, "mixture": [{"lm": 0.25, "episodes": {"lines": 1}}]}
    outcomes = {}
    for name, growth in (("whole", []), ("killed", [500, 2200])):
        folder = tmp_path / name
        folder.mkdir()
        config = write_config(folder, data, grid=GRID, match={"budget": None}, model=MODEL, train=change)
        if growth:
            assert killed_until_done(
                "train_main", [str(config)], folder / "log", folder / "runs" / RUN / "metrics.csv", growth
            )
        else:
            assert train_main([str(config)]) == 0
        outcomes[name] = outcome(folder)
    assert outcomes["whole"] == outcomes["killed"]


def test_a_resume_reads_each_file_of_a_checkpoint_once(tmp_path, data_settings, whole, monkeypatch):
    config = finished(tmp_path, whole, data_settings)
    saved = sorted((tmp_path / "runs" / RUN / "checkpoints").glob("step-*"))
    shutil.rmtree(saved[-1])
    read, plain = Counter(), files.digest_file

    def digest(path):
        read[path.relative_to(path.parent.parent).as_posix()] += path.parent == saved[-2]
        return plain(path)

    monkeypatch.setattr(files, "digest_file", digest)
    assert train_main([str(config)]) == 0
    names = {f"{saved[-2].name}/{name}" for name in ("model.safetensors", "optimizer.safetensors", "state.json")}
    assert {name: count for name, count in read.items() if count} == dict.fromkeys(names, 1)
    sabotage(saved[-2], "bit")
    assert damage_of(saved[-2]) is not None, "but a file that changes is read again"


def nan_gradients(*steps):
    """A step of training whose loss is infinite at some steps."""
    plain = Training.training_step

    def training_step(self, batch, index):
        loss = plain(self, batch, index)
        return loss * float("inf") if batch["step"] in steps else loss

    return training_step


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_bad_steps_before_a_kill_count_after_it(tmp_path, data_settings, monkeypatch, policy):
    """A run that is interrupted amid its bad steps leaves out the same, or ends as the uninterrupted one does."""
    guards = {"non_finite": policy, "leave_out": 2, "rewinds": 9}
    bad = (2, 3, 5, 6, 8, 9, 10, 12, 13, 15, 17) if policy == "skip" else (5, 13)
    monkeypatch.setattr(Training, "training_step", nan_gradients(*bad))
    ends = {}
    for name, stops in (("whole", ()), ("stopped", (4, 11, 16))):
        folder = tmp_path / name
        folder.mkdir()
        config = fresh(folder, data_settings, train={"guards": guards, "checkpoint_every": 64 * 4 * 4, "keep": 1})
        checkpoints = folder / "runs" / RUN / "checkpoints"
        for stop in stops:
            monkeypatch.setattr(saving, "is_over", lambda hours, stop=stop: reached(checkpoints.parent) >= stop)
            assert train_main([str(config)]) == 75
        monkeypatch.setattr(saving, "is_over", lambda hours: False)
        code, status = train_main([str(config)]), read_json(checkpoints.parent / "status.json")
        state = read_json(max(checkpoints.glob("step-*")) / "state.json")
        ends[name] = (code, status.get("why"), status.get("rewinds"), state["digest"], state["skipped"])
        if code == 0:
            ends[name] += (outcome(folder)["weights"],)
    assert ends["whole"] == ends["stopped"]
    assert ends["whole"][0] == (4 if policy == "skip" else 0)


def reached(run):
    """The last step in a run's metrics."""
    return max((row["step"] for row in read_metrics(run / "metrics.csv") if "step" in row), default=0)
