"""A trained check that the place of an answer says nothing: a transformer with learned positions on parity.

Parity is beyond two layers of attention at this size, so an accuracy above chance at a trained length is a shortcut.
In a suite in which an episode ended with its answer, the position at which the answer began gave its label's tokens:
this model read its position and was right in 1.00 of cases at 128 tokens and 0.00 at 126. A model that solved parity
would do so at every length that it was trained on.
"""

import tempfile
from pathlib import Path
from typing import Any

from lcprobe.api.probes import probe
from lcprobe.api.studies import load_study
from lcprobe.studies.training.train_study import train_study

TITLE = "learned positions on parity"
OPTIONS = ("tokens", "n")
TRAINED: dict[str, list[str]] = {"128": ["128t"], "64, 128": ["64t", "128t"]}
PROBED = (64, 126, 127, 128)


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per set of training lengths and probed length. options: tokens (800,000) of training, n (400)."""
    rows: list[dict[str, Any]] = []
    for name, lengths in TRAINED.items():
        with tempfile.TemporaryDirectory() as folder:
            train_study(config_of(Path(folder), lengths, int(options.get("tokens", 800_000))))
            (run,) = load_study(Path(folder) / "parity").runs.values()
            task = {"type": "state_tracking"}
            table = probe(run.model(), task, lengths=list(PROBED), n=int(options.get("n", 400))).accuracy("length")
            for row in table.to_dict("records"):
                found = {key: round(float(row[key]), 3) for key in ("accuracy", "low", "high", "chance")}
                above = found["low"] > found["chance"]
                rows.append(
                    {"trained at": name, "length": row["length"], **found, "above chance": "yes" if above else "no"}
                )
    return rows


def config_of(folder: Path, lengths: list[str], tokens: int) -> dict[str, Any]:
    """A study of one run that learns parity alone."""
    return {
        "study": {"name": "parity", "folder": str(folder)},
        "model": {
            "layout": "attention+mlp x 2", "d_model": 64, "d_ff": 128, "positional": "learned_8x",
            "mixers": {"attention": {"head_dim": 32}},
            "encodings": {"learned_8x": {"type": "learned", "max_length": 1024}},
        },
        "train": {
            "context_length": 128, "tokens": tokens, "batch_tokens": 2048, "lr": 0.003, "warmup": 0.05,
            "probe_every": 0,
        },
        "data": {
            "recipes": {"parity": {"task": {"type": "state_tracking"}}},
            "mixture": [{"lm": 0.0, "episodes": {"parity": 1}, "lengths": lengths}],
        },
        "track": {"wandb": "off"},
    }  # fmt: skip
