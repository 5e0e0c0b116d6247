"""W&B's own client against a server on this machine: every row once and every run once, over kills, preemption, second
evaluations, and what was tracked offline. openwandb is a tool of these tests, not a dependency (its licence)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lcprobe.studies.tracking.identity import run_id
from tests.tiny import write_config
from tests.wandb_server import received, start

pytestmark = pytest.mark.slow
STEPS, MANY = 40, 1600
"""MANY: steps of a training that goes on longer than W&B's client waits before it first sends rows."""
ONE = {"arch": {"mamba2": {"model": {"layout": "mamba2 x 2"}}}}


@pytest.fixture
def server(tmp_path):
    """A server, and the environment that leads to it."""
    pytest.importorskip("openwandb", reason="no W&B server on this machine: pip install openwandb")
    folder = tmp_path / "server"
    folder.mkdir()
    process, environment = start(folder)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    quick = {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "0.1", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    yield folder, {**clean, **environment, **quick}
    process.terminate()
    process.wait()


def config_of(folder: Path, data_settings: dict, mode: str, steps: int = STEPS, **settings: dict) -> Path:
    folder.mkdir(exist_ok=True)
    train = {"tokens": 64 * 4 * steps, "checkpoint_every": 64 * 4 * steps // 10}
    return write_config(folder, data_settings, track={"wandb": mode}, train=train, **{"grid": ONE, **settings})


def lcprobe(environment: dict, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "lcprobe", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def done(environment: dict, *words: object) -> str:
    """What a command prints that ends well."""
    process = lcprobe(environment, *words)
    printed, _ = process.communicate(timeout=900)
    assert process.returncode == 0, printed
    return printed


def stopped(environment: dict, config: Path, end: signal.Signals, when) -> int:
    """The exit code of a training that is sent a signal once `when` holds."""
    process = lcprobe(environment, "train", config)
    while process.poll() is None and not when():
        time.sleep(0.02)
    process.send_signal(end)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode not in (0, 1), printed
    return process.returncode


def rows_in(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.is_file() else 0


def check_whole(run, steps: int = STEPS) -> None:
    """The run has every row of training once, the curve once, and the results of its evaluation."""
    assert (run.group, run.job_type, run.name) == ("tiny", "train", "tiny/mamba2")
    assert [row["tokens"] for row in run.rows if "train/loss" in row] == [256 * (i + 1) for i in range(steps)]
    assert [row["eval/length"] for row in run.rows if "eval/length" in row] == [64, 128]
    assert {"eval/multikey@64", "eval/multikey@128/low", "eval/multikey/chance"} <= set(run.summary)


def check_lineage(runs, study: Path, evaluations: int) -> None:
    """Training has made a checkpoint from a data set, and an evaluation records and a report from a checkpoint; the
    same content has one digest however often it came."""
    train, probe = runs[run_id(study, "mamba2", "train")], runs[run_id(study, "", "probe")]
    ours = {"dataset", "checkpoint", "records", "report"}
    assert {kind for kind, _, _ in train.made} == {"checkpoint"}
    assert {kind for kind, _, _ in train.used} == {"dataset"}
    assert {kind for kind, _, _ in probe.made} & ours == {"records", "report"}
    assert set(probe.used) == set(train.made), "the checkpoint that training has made"
    made = [one for one in (*train.made, *probe.made) if one[0] in ours]
    assert len({name for _, name, _ in made}) == len(set(made)) == 3, made
    assert len(probe.used) == evaluations


def test_online_a_run_that_is_killed_preempted_and_probed_twice_is_one_run(tmp_path, data_settings, server):
    folder, environment = server
    config, study = config_of(tmp_path / "here", data_settings, "auto", MANY), tmp_path / "here" / "runs" / "tiny"

    def trained() -> int:
        return sum("train/loss" in row for run in received(folder).values() for row in run.rows)

    assert stopped(environment, config, signal.SIGKILL, lambda: trained() >= 20) == -signal.SIGKILL
    before = trained()
    assert stopped(environment, config, signal.SIGTERM, lambda: trained() > before) == 75
    id, alerts = run_id(study, "mamba2", "train"), run_id(study, "", "alert")
    assert set(received(folder)) == {id}
    assert received(folder)[id].exit_codes == [75]
    assert received(folder)[id].preempting
    done(environment, "train", config)
    assert received(folder)[id].exit_codes == [75, 0]
    for times in (1, 2):
        done(environment, "evaluate", study)
        runs = received(folder)
        assert set(runs) == {id, run_id(study, "", "probe"), alerts}
        assert runs[alerts].rows == []
        check_whole(runs[id], MANY)
        assert runs[id].sent == len(runs[id].lines), "no row is sent twice"
        assert runs[id].exit_codes == [75, 0] + [0] * times
        check_lineage(runs, study, times)
    assert "0 runs sent" in done(environment, "sync", study)


def test_offline_folders_are_sent_once_the_newest_of_each_run(tmp_path, data_settings, server):
    folder, environment = server
    offline = {**environment, "WANDB_MODE": "offline"}
    studies = []
    for name in ("here", "there"):
        config = config_of(tmp_path / name, data_settings, "auto")
        studies.append(study := tmp_path / name / "runs" / "tiny")
        metrics = study / "mamba2" / "metrics.csv"
        if name == "here":
            assert (
                stopped(offline, config, signal.SIGKILL, lambda path=metrics: rows_in(path) > 12) == -signal.SIGKILL
            )
        done(offline, "train", config)
        for _ in range(2):
            done(offline, "evaluate", study)
    assert not (folder / "requests.jsonl").exists() or not received(folder)
    assert len(list(studies[0].rglob("offline-run-*"))) == 6, "two of training, two evaluations of two runs"
    assert "4 runs sent" in done(environment, "sync", *studies)
    runs = received(folder)
    assert set(runs) == {run_id(study, *run) for study in studies for run in (("mamba2", "train"), ("", "probe"))}
    for study in studies:
        run = runs[run_id(study, "mamba2", "train")]
        check_whole(run)
        assert run.sent == len(run.lines)
        check_lineage(runs, study, 1)
    assert "0 runs sent" in done(environment, "sync", *studies)
    sent = {id: run.sent for id, run in runs.items()}
    assert {id: run.sent for id, run in received(folder).items()} == sent
    done(offline, "evaluate", studies[0], "probe.grids=[{lengths: [1, 2, 4], depths: 3, n: 8}]")
    assert "2 runs sent" in done(environment, "sync", tmp_path / "here")
    curve = [
        row["eval/length"]
        for row in received(folder)[run_id(studies[0], "mamba2", "train")].rows
        if "eval/length" in row
    ]
    assert curve == [64, 128, 256]


def test_a_trial_of_a_sweep_is_its_agents_run(tmp_path, data_settings, server):
    folder, environment = server
    agent = {"WANDB_SWEEP_ID": "s1w2", "WANDB_RUN_ID": "q1w2e3r4", "WANDB_PROJECT": "theirs"}
    config = config_of(
        tmp_path / "here", data_settings, "auto", grid={}, model={"layout": "mamba2 x 2"}, match={"budget": None}
    )
    done({**environment, **agent}, "train", config)
    (id,) = received(folder)
    run = received(folder)[id]
    assert (id, run.sweep) == ("q1w2e3r4", "s1w2")
    assert run.summary["train/final_loss"] > 0
