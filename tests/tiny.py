"""A study that trains in seconds, and processes that can be killed."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["lcprobe.studies.training.train_study", "lcprobe.studies.evaluation.session", "lcprobe.training.fit"]
)

TINY = {
    "study": {"name": "tiny"},
    "model": {
        "d_model": 16,
        "mixers": {"attention": {"head_dim": 8, "d_conv": 4}, "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16}},
    },
    "match": {"budget": "mamba2"},
    "grid": {"arch": {"mamba2": {"model": {"layout": "mamba2 x 2"}}, "hybrid": {"model": {"layout": "attention+mlp, mamba2"}}}},
    "train": {
        "context_length": 64, "tokens": 64 * 4 * 24, "batch_tokens": 64 * 4, "lr": 0.01, "log_every": 1,
        "checkpoint_every": 64 * 4 * 2, "threads": 1,
    },
    "data": {
        "recipes": {"lines": {"task": {"type": "niah", "n_keys": 2, "n_queries": 2, "template": "line", "digits": 2}}},
        "mixture": [{"lm": 0.25, "episodes": {"lines": 1}, "lengths": [1, 0.5]}],
    },
    "probe": {
        "tasks": {
            "single": {"type": "niah", "n_keys": 1, "template": "line", "digits": 2},
            "multikey": {"type": "niah", "n_keys": 3, "template": "line", "digits": 2},
        },
        "grids": [
            {"lengths": [1, 2], "depths": 3, "n": 8},
            {"lengths": [1], "controls": ["zero_distance", "no_needle", "wrong_key", "query_only"], "n": 8},
        ],
        "context": {"lengths": [1, 2], "n": 4, "kept": [8]},
        "while_training": {"tasks": ["single"], "lengths": [1], "depths": 1, "n": 4},
        "batch_tokens": 512,
    },
    "track": {"wandb": "off", "system_metrics": False},
}  # fmt: skip


def write_config(folder: Path, data: dict, **changes) -> Path:
    """tiny.yaml in `folder`, studies under folder/runs, with sections of the config changed."""
    config = {**TINY, "data": {**TINY["data"], **data}, "study": {**TINY["study"], "folder": str(folder / "runs")}}
    for room, values in changes.items():
        config[room] = {**config.get(room, {}), **values} if isinstance(values, dict) and room != "grid" else values
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _child(main: str, arguments: list[str], log: str, environment: dict[str, str]) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "a", buffering=1)  # noqa: SIM115
    from lcprobe.cli import commands

    os._exit(getattr(commands, main)(arguments))


def start(
    main: str, arguments: list[str], log: Path, environment: dict[str, str] | None = None
) -> multiprocessing.Process:
    """Start a command in a separate process, with more variables in its environment."""
    process = CONTEXT.Process(target=_child, args=(main, arguments, str(log), environment or {}))
    process.start()
    return process


def killed_until_done(
    main: str, arguments: list[str], log: Path, watch: Path | None = None, growth: Sequence[int] = ()
) -> int:
    """Kill -9 the command each time `watch` (a file, or a folder's files) has grown by so many bytes, then let it finish;
    how many kills hit it alive."""
    kills = 0
    for more in growth:
        assert watch is not None
        process, wanted = start(main, arguments, log), _size(watch) + more
        while process.is_alive() and _size(watch) < wanted:
            time.sleep(0.004)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
    process = start(main, arguments, log)
    process.join(120)
    assert process.exitcode == 0, log.read_text()[-2000:]
    return kills


def _size(path: Path) -> int:
    try:
        return sum(p.stat().st_size for p in path.iterdir()) if path.is_dir() else path.stat().st_size
    except OSError:  # not there yet, or renamed while looking
        return 0
