"""Resuming: after kill -9, signals and damaged checkpoints a run ends bit-identical to an uninterrupted one."""

import os
import random
import shutil
import signal
import time

import pytest
from safetensors.torch import load_file

from lcprobe.cli.commands import train_main
from lcprobe.files import digest_file, read_json
from lcprobe.studies.tracking import read_metrics
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
def uninterrupted(tmp_path_factory, data_settings):
    folder = tmp_path_factory.mktemp("whole")
    config = write_config(folder, data_settings, grid=GRID, match={"budget": None}, model=MODEL)
    process = start("train_main", [str(config)], folder / "log")
    process.join(120)
    assert process.exitcode == 0, (folder / "log").read_text()
    return outcome(folder)


MODEL = {"d_ff": 24}


def fresh(tmp_path, data_settings, **changes):
    return write_config(tmp_path, data_settings, grid=GRID, match={"budget": None}, model=MODEL, **changes)


def test_killed_at_random_and_resumed_equals_uninterrupted(tmp_path, data_settings, uninterrupted):
    config = fresh(tmp_path, data_settings)
    dice = random.Random(7)
    growth = [dice.randrange(1, 900) for _ in range(8)]  # a row of metrics is about 120 bytes
    metrics = tmp_path / "runs" / RUN / "metrics.csv"
    kills = killed_until_done("train_main", [str(config)], tmp_path / "log", metrics, growth)
    assert kills >= 4, "the test must interrupt something"
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


@pytest.mark.parametrize("kind", ["bit", "truncated", "missing", "no manifest"])
def test_a_damaged_newest_checkpoint_is_renamed_and_the_previous_one_used(
    tmp_path, data_settings, uninterrupted, kind
):
    config = fresh(tmp_path, data_settings)
    process = start("train_main", [str(config)], tmp_path / "log")
    process.join(60)
    run = tmp_path / "runs" / RUN
    newest = max((run / "checkpoints").glob("step-*"))
    sabotage(newest, kind)
    killed_until_done("train_main", [str(config)], tmp_path / "log")
    assert outcome(tmp_path) == uninterrupted
    assert (run / "checkpoints" / f"bad-{newest.name}").is_dir()
    assert f"{newest.name} is damaged" in (tmp_path / "log").read_text()


def test_damaged_checkpoints_alone_are_exit_5_and_never_a_restart(tmp_path, data_settings, capsys):
    config = fresh(tmp_path, data_settings)
    assert train_main([str(config)]) == 0
    folder = tmp_path / "runs" / RUN / "checkpoints"
    for checkpoint in folder.glob("step-*"):
        sabotage(checkpoint, "bit")
    capsys.readouterr()
    assert train_main([str(config)]) == 5
    assert "no valid checkpoint" in capsys.readouterr().err
    assert train_main([str(config)]) == 5, "and again, though they were set aside"


def test_another_configuration_in_the_same_folder_is_refused(tmp_path, data_settings, capsys):
    config = fresh(tmp_path, data_settings)
    assert train_main([str(config)]) == 0
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
    for _ in range(2):  # refused again, and for a finished run too: a study would compare models of two corpora
        capsys.readouterr()
        assert train_main([str(config)]) == 2
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
