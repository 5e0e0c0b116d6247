"""A study that is probed by `evaluate.py` with one process and with several that share every context
(`probe.context_parallel`): the same records."""

import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.dialect import read_yaml, write_yaml
from validation.kills.study import Study, new_study

LAYOUTS = {
    "transformerpp": "attention+mlp x 2",
    "mamba2": "mamba2 x 2",
    "rwkv7": "rwkv7+rwkv7 x 2",
    "hybrid": "attention+mlp, mamba2, rg_lru+mlp",
}
STEPS = 60
TEXT = {"lengths": [1, 2], "n": 4, "kept": [8]}
OF_SUMS = ("log_likelihood", "value")
"""Columns of sums in float32, which differ in their last digits."""


def record_rows(sizes: list[int]) -> list[dict[str, Any]]:
    """A row for each number of processes and model."""
    rows = []
    with tempfile.TemporaryDirectory() as home:
        study = new_study(Path(home) / "study", STEPS)
        _prepare(study)
        _quietly(train_main, [str(study.config)])
        alone = _probed(study.folder, Path(home) / "one", [])
        for size in sizes:
            shared = _probed(study.folder, Path(home) / f"{size}", [f"probe.context_parallel={size}"])
            rows += [_row(size, model, alone, shared) for model in LAYOUTS]
    return rows


def _prepare(study: Study) -> None:
    """Give the study its models and its probe."""
    config = read_yaml(study.config.read_text(encoding="utf-8"))
    mixers = {**config["model"]["mixers"], "rwkv7": {"head_dim": 8}, "rg_lru": {"n_blocks": 2}}
    config["model"] |= {"mixers": mixers, "d_ff": 32}
    config |= {"match": {"budget": None, "allow_mismatch": True}, "track": {"wandb": "off"}}
    config["grid"] = {"arch": {name: {"model": {"layout": layout}} for name, layout in LAYOUTS.items()}}
    config["probe"] |= {"chunk": 96, "context": TEXT}
    config["train"] |= {"checkpoint_every": config["train"]["tokens"]}
    study.config.write_text(write_yaml(config), encoding="utf-8")


def _probed(study: Path, out: Path, settings: list[str]) -> dict[str, pd.DataFrame]:
    """The records of a copy of a study, and those of plain text, each in one order."""
    copy = out / study.name
    shutil.copytree(study, copy)
    _quietly(evaluate_main, [str(copy), *settings])
    found = {}
    for kind in ("records", "context"):
        tables = [pq.read_table(path).to_pandas() for path in sorted((copy / kind).glob("*.parquet"))]
        found[kind] = pd.concat(tables, ignore_index=True)
    return found


def _row(size: int, model: str, alone: dict[str, pd.DataFrame], shared: dict[str, pd.DataFrame]) -> dict[str, Any]:
    differ, apart, counts = set[str](), 0.0, []
    for kind in ("records", "context"):
        one, other = (
            tables[kind][tables[kind]["model"] == model].reset_index(drop=True) for tables in (alone, shared)
        )
        counts.append(len(one))
        assert len(one) == len(other), f"{model}: {len(one)} and {len(other)} {kind}"
        for column in one.columns:
            if column in OF_SUMS:
                a, b = (np.array(table[column], dtype=float) for table in (one, other))
                apart = max(apart, float(np.nanmax(np.abs(a - b) / np.maximum(np.abs(a), 1))))
            elif list(map(str, one[column])) != list(map(str, other[column])):
                differ.add(column)
    return {
        "model": f"evaluate.py, {model}",
        "ranks": size,
        "refused": "",
        "records": counts[0],
        "measurements of plain text": counts[1],
        "columns that differ": ", ".join(sorted(differ)),
        "log-likelihoods": apart,
    }


def _quietly(command: Any, arguments: list[str]) -> None:
    """Raises RuntimeError with what was printed, where a command fails."""
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = command(arguments)
    if code:
        raise RuntimeError(f"exit code {code}: {said.getvalue()[-2000:]}")
