"""The study that is killed: two tiny models, tracked offline, with a checkpoint every few steps and a small probe.

Its plan is made once for each way of dividing it over processes, before anything is forked: an attempt begins where
`lcprobe train` has its plan, and costs no second of imports and checks.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcprobe.config import load
from lcprobe.dialect import write_yaml
from lcprobe.studies.planning.plan import StudyPlan
from lcprobe.studies.training.train_run import train_run
from lcprobe.studies.training.train_study import checked_plan, write_study

NAME = "kills"
BATCH = 64 * 4
EVERY = 4
"""Steps between two checkpoints."""
TASK = {"type": "niah", "n_keys": 2, "n_queries": 2, "template": "line", "digits": 2}
SINGLE = {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}


@dataclass(frozen=True)
class Division:
    """Processes of a run, and the settings of `train` that say what they do."""

    processes: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)


DIVISIONS = {
    "one": Division(),
    "ddp": Division(2, {"strategy": "ddp"}),
    "fsdp2": Division(2, {"strategy": "fsdp2"}),
}


@dataclass(frozen=True)
class Study:
    """home: a folder of its own, with config.yaml and the text; steps: of each of its runs."""

    home: Path
    steps: int

    @property
    def folder(self) -> Path:
        """Of the study."""
        return self.home / "runs" / NAME

    @property
    def config(self) -> Path:
        """The config, for one process a run."""
        return self.home / "config.yaml"

    def plan(self, division: str = "one") -> StudyPlan:
        """Its plan; also writes study.yaml."""
        chosen = DIVISIONS[division]
        settings = {"devices": chosen.processes, **chosen.settings}
        mapping = load([str(self.config)], [f"train.{name}={value}" for name, value in settings.items()])
        plan = checked_plan(mapping)
        write_study(plan, mapping)
        return plan


def new_study(home: Path, steps: int) -> Study:
    """Write config and text into a folder."""
    home.mkdir(parents=True)
    dice = random.Random(0)
    words = ["".join(dice.choices("aeioulnrst", k=dice.randint(2, 8))) for _ in range(1000)]
    texts = (" ".join(dice.choices(words, k=200)) for _ in range(400))
    lines = [json.dumps({"text": text.replace(" a", ". A")}) for text in texts]
    (home / "words.jsonl").write_text("\n".join(lines), encoding="utf-8")
    layouts = {"mamba2": "mamba2 x 2", "hybrid": "attention+mlp, mamba2"}
    config: dict[str, Any] = {
        "study": {"name": NAME, "folder": str(home / "runs")},
        "model": {
            "d_model": 16,
            "mixers": {
                "attention": {"head_dim": 8, "d_conv": 4},
                "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16},
            },
        },
        "match": {"budget": "mamba2"},
        "grid": {"arch": {arch: {"model": {"layout": layout}} for arch, layout in layouts.items()}},
        "train": {
            "context_length": 64, "tokens": BATCH * steps, "batch_tokens": BATCH, "lr": 0.01, "log_every": 1,
            "checkpoint_every": EVERY * BATCH, "threads": 1, "accelerator": "cpu",
        },
        "data": {
            "corpus": [str(home / "words.jsonl")], "folder": str(home / "data"), "held_out": 0.2,
            "recipes": {"lines": {"task": TASK}},
            "mixture": [{"lm": 0.25, "episodes": {"lines": 1}, "lengths": [1, 0.5]}],
        },
        "probe": {
            "tasks": {"single": SINGLE, "multikey": {**SINGLE, "n_keys": 3}},
            "grids": [{"lengths": [1, 2], "depths": 3, "n": 12}],
            "batch_tokens": 256,
        },
        "track": {"wandb": "offline"},
    }  # fmt: skip
    study = Study(home, steps)
    study.config.write_text(write_yaml(config), encoding="utf-8")
    return study


def train(plan: StudyPlan) -> None:
    """Train its runs, each from where it is. In every process of a run."""
    for run in plan.runs:
        train_run(run)
