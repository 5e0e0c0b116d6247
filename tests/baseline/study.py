"""The study behind baseline.json: mamba2, attention and a hybrid with a window, two encodings, 20 steps; every task at one length."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from safetensors.numpy import load_file

from lcprobe.cli.commands import train_main
from lcprobe.config import load
from lcprobe.data.sources.sotu import speeches
from lcprobe.files import digest_bytes, digest_file, digest_json, write_json
from lcprobe.merging import Settings
from lcprobe.studies.evaluation.evaluate_study import resolve_targets
from lcprobe.studies.evaluation.session import Session, open_session, probe_session

CONTEXT, STEPS = 64, 20
GRID = {"lengths": [17], "depths": 1, "n": 2}  # 1,088 tokens: the least at which every task exists is 1,049
PROBED = ("mamba2", "attention-positional=alibi")
"""Runs with records of SOME tasks; with the one of every task, every layout and every encoding once."""
SOME = ("niah_separate", "copying", "vt", "fwe")
PROBED_ON_EVERY_TASK = "hybrid-positional=rope"
STUDY = {
    "study": {"name": "baseline"},
    "model": {
        "d_model": 16,
        "mixers": {
            "attention": {"head_dim": 8, "d_conv": 4},
            "local": {"type": "attention", "head_dim": 8, "window": 16},
            "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16},
        },
    },
    "match": {"budget": "mamba2", "allow_mismatch": True},
    "grid": {
        "arch": {
            "mamba2": {"model": {"layout": "mamba2 x 2"}},
            "attention": {"model": {"layout": "attention+mlp x 2"}},
            "hybrid": {"model": {"layout": "local+mlp, mamba2, attention"}},
        },
        "model.positional": ["rope", "alibi"],
    },
    "train": {
        "context_length": CONTEXT, "tokens": CONTEXT * 4 * STEPS, "batch_tokens": CONTEXT * 4, "lr": 0.01, "threads": 1,
        "checkpoint_every": CONTEXT * 4 * STEPS,
    },
    "data": {
        "held_out": 0.2,
        "recipes": {"lines": {"task": {"type": "niah", "n_keys": 2, "n_queries": 2, "template": "line", "digits": 2}}},
        "mixture": [{"lm": 0.5, "episodes": {"lines": 1}, "lengths": [1]}],
    },
    "track": {"wandb": "off"},
}  # fmt: skip


def measured(folder: Path) -> dict[str, Any]:
    """Train and probe below `folder`; digests of every task's episodes, of final weights and of the records, by run.

    episodes: the ids of all samples, by task. weights, records: `digest` to the bit, `norms` and `scores` to compare elsewhere.
    """
    config, corpus = folder / "baseline.yaml", folder / "speeches.jsonl"
    texts = list(speeches())[::12]
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    data = {**STUDY["data"], "folder": str(folder / "data"), "corpus": [str(corpus)]}
    study = {**STUDY["study"], "folder": str(folder)}
    config.write_text(yaml.safe_dump({**STUDY, "study": study, "data": data}, sort_keys=False))
    assert train_main([str(config)]) == 0
    tasks = load(["configs/probe/every.yaml"], [])["probe"]["tasks"]
    _probe(folder, PROBED, {name: tasks[name] for name in SOME})
    session, out = _probe(folder, (PROBED_ON_EVERY_TASK,), tasks)
    return {"episodes": _episodes(session), "weights": _weights(out), "records": _records(out)}


def _probe(folder: Path, runs: tuple[str, ...], tasks: dict[str, Any]) -> tuple[Session, Path]:
    """Records of some runs; the session, and the folder of the study."""
    given = Settings((("", {"probe": {"tasks": tasks, "grids": [GRID]}}),))
    targets, settings, out = resolve_targets([folder / "baseline"], given, None)
    session = open_session([target for target in targets if target.name in runs], settings, out)
    assert not session.notes, session.notes
    probe_session(session)
    return session, out


def _episodes(session: Session) -> dict[str, str]:
    found: dict[str, list[bytes]] = {}
    for unit in session.plan.units:
        for episode in session.tasks.episodes(unit):
            own = [episode.sequence(query).astype("<i4").tobytes() for query in episode.queries]
            found.setdefault(unit.task, []).extend([episode.ids.astype("<i4").tobytes(), *own])
    return {task: digest_bytes(*parts) for task, parts in sorted(found.items())}


def _weights(study: Path) -> dict[str, Any]:
    made = {}
    for folder in sorted(path.parent for path in study.glob("*/checkpoints")):
        (checkpoint,) = folder.glob("checkpoints/step-*")
        weights = load_file(checkpoint / "model.safetensors")
        norms = {name: float(np.linalg.norm(w.astype(np.float64))) for name, w in sorted(weights.items())}
        made[folder.name] = {"digest": digest_file(checkpoint / "model.safetensors"), "norms": norms}
    return made


def _records(study: Path) -> dict[str, Any]:
    rows = [row for path in sorted((study / "records").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    rows.sort(key=lambda row: (row["model"], row["task"], row["index"], row["query"]))
    made = {}
    for model in sorted({row["model"] for row in rows}):
        own = [row for row in rows if row["model"] == model]
        scores = {
            name: float(np.mean([row[name] for row in own])) for name in ("exact", "token_accuracy", "log_likelihood")
        }
        made[model] = {"digest": digest_json(own), "n": len(own), "scores": scores}
    return made


if __name__ == "__main__":
    write_json(Path(sys.argv[2]), measured(Path(sys.argv[1])))
