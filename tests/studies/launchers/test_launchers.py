"""What each launcher starts: GPUs and threads of local workers, scripts of SLURM; settings that cannot work."""

from pathlib import Path

import pytest

from lcprobe.choices import choose
from lcprobe.config import load, parse
from lcprobe.errors import ConfigError
from lcprobe.locks import this_process
from lcprobe.studies.launchers.config import LAUNCHERS, LocalConfig, minutes
from lcprobe.studies.launchers.contract import RunTask, Task, last_line_of
from lcprobe.studies.launchers.launch import _say_who_goes_on
from lcprobe.studies.launchers.local import Local, visible_gpus
from lcprobe.studies.launchers.slurm import Slurm
from lcprobe.studies.launchers.work.reports import Reporter


def task(count=12, devices=1, runs=()):
    return Task(Path("runs/s"), ("train",), count, devices, Path("runs/s/work/logs"), runs)


@pytest.mark.parametrize(
    ("gpus", "workers", "devices", "count", "places", "shares"),
    [
        (4, None, 1, 12, 4, ["0", "1", "2", "3"]),
        (4, None, 2, 12, 2, ["0,1", "2,3"]),
        (4, None, 1, 2, 2, ["0", "1"]),
        (5, None, 2, 12, 2, ["0,1", "2,3"]),
        (1, None, 2, 12, 1, ["0"]),
        (2, 4, 1, 12, 4, ["0", "1", "0", "1"]),
        (0, None, 1, 12, 1, [None]),
        (0, 3, 1, 12, 3, [None, None, None]),
    ],
)
def test_local_workers_share_out_gpus(gpus, workers, devices, count, places, shares):
    local = Local(LocalConfig(workers), [str(number) for number in range(gpus)])
    asked = task(count, devices)
    assert local.places(asked) == places
    assert [local.environment(asked, place).get("CUDA_VISIBLE_DEVICES") for place in range(places)] == shares


def test_local_workers_share_out_cores(monkeypatch):
    monkeypatch.setattr("lcprobe.studies.launchers.local.cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    own = [Local(LocalConfig(n), []).environment(task(), 0)["OMP_NUM_THREADS"] for n in (1, 2, 3, 9)]
    assert own == ["8", "4", "2", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in Local(LocalConfig(2), []).environment(task(), 0), "what the user says holds"


@pytest.mark.parametrize(("given", "gpus"), [("2,3", ["2", "3"]), ("GPU-a1, GPU-b2", ["GPU-a1", "GPU-b2"])])
def test_visible_gpus_are_those_that_the_environment_names(given, gpus):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": given}) == gpus


def slurm(**settings) -> Slurm:
    return choose(LAUNCHERS, {"type": "slurm", "dry_run": True, **settings}, "launcher").create()


def test_the_script_of_an_array_of_workers():
    script = slurm(partition="gpu", time="1d12h", memory="64GB", jobs=6, setup=["module load cuda"]).scripts(task())[
        "train"
    ]
    assert script.splitlines() == [
        "#!/bin/bash",
        "#SBATCH --job-name=lcprobe-s",
        "#SBATCH --partition=gpu",
        "#SBATCH --mem=64GB",
        "#SBATCH --nodes=1",
        "#SBATCH --time=2160",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --array=0-5%256",
        "#SBATCH --gpus-per-task=1",
        "#SBATCH --signal=USR1@120",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=runs/s/work/logs/%A_%a.log",
        "#SBATCH --requeue",
        "",
        "module load cuda",
        "srun --cpus-per-task=8 --kill-on-bad-exit=0 python -m lcprobe work runs/s --units train",
        "code=$?",
        'if [ $code -eq 75 ] && python -m lcprobe.studies.launchers.work.requeue runs/s "$SLURM_JOB_ID" 2; then',
        '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        "exit $code",
    ]


@pytest.mark.parametrize(
    ("settings", "count", "devices", "places"),
    [
        ({}, 12, 1, 12),
        ({}, 500, 1, 64),
        ({"jobs": 3}, 12, 1, 3),
        ({"gpus_per_job": 8}, 12, 2, 3),
        ({"gpus_per_job": 0}, 5, 1, 5),
    ],
)
def test_jobs_of_an_array(settings, count, devices, places):
    assert slurm(**settings).places(task(count, devices)) == places


def test_a_run_with_more_gpus_than_a_job_gets_whole_nodes():
    words = {name: ("-m", "lcprobe", "train", f"runs/s/work/runs/{name}.yaml") for name in ("a", "b")}
    runs = tuple(RunTask(name, Path("runs/s") / name, own, 1, "") for name, own in words.items())
    launcher, asked = slurm(gpus_per_node=8), task(2, 16, runs)
    assert launcher.of_runs(asked)
    assert launcher.places(asked) == 2
    scripts = launcher.scripts(asked)
    assert scripts.keys() == {"a", "b"}
    for name, script in scripts.items():
        assert {"#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=8"} < set(script.splitlines())
        assert f"--kill-on-bad-exit=1 python -m lcprobe train runs/s/work/runs/{name}.yaml" in script
    with pytest.raises(ConfigError, match=r"train\.devices"):
        launcher.places(task(2, 17, runs))


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["launcher=lokal"], "launcher.type"),
        (["launcher=local", "launcher.workers=0"], "launcher.workers"),
        (["launcher=local", "launcher.partition=gpu"], "launcher.partition"),
        (["launcher=slurm", "launcher.time=4"], "launcher.time"),
        (["launcher=slurm", "launcher.partition='a b; rm'"], "launcher.partition"),
        (["launcher=slurm", "launcher.executor=moab"], "launcher.executor"),
        (["launcher=slurm", "launcher.signal=14400"], "launcher.signal"),
        (["launcher=ray", "launcher.num_cpus=0"], "launcher.num_cpus"),
        (["launcher.workers=2"], "launcher.type"),
        (["launcher=local", "launcher.retries=-1"], "launcher.retries"),
    ],
)
def test_settings_that_cannot_work_are_named(words, key):
    with pytest.raises(ConfigError) as caught:
        launcher = parse(load([], words)).launcher
        launcher.resolve()
    assert caught.value.key == key


def test_times_are_read_as_slurm_has_them():
    assert [minutes(one) for one in ("90m", "4h", "2d12h", "1d1h1m", "", "4", "h", "4 h")] == [
        90,
        240,
        3600,
        1501,
        0,
        0,
        0,
        0,
    ]


def test_the_last_line_of_what_a_worker_printed(tmp_path):
    path = tmp_path / "log"
    assert last_line_of(path) == ""
    for text, line in (("", ""), ("a\n\n b \n\n", "b"), ("x" * 9000 + "\nlast", "last"), ("\xff\n", "\xff")):
        path.write_text(text)
        assert last_line_of(path) == line


def test_workers_that_an_earlier_launcher_left_are_named(tmp_path, capsys):
    worker = Reporter(tmp_path)
    worker.begin("train", "a")
    _say_who_goes_on(tmp_path)
    assert f"1 worker of another launch at work here ({this_process()}" in " ".join(capsys.readouterr().out.split())
    worker.close()
    _say_who_goes_on(tmp_path)
    assert capsys.readouterr().out == ""
