"""A run divided over processes, over accumulated passes, or first one way and then another, against one process.

Every case trains the same steps through `lcprobe.training.fit` with gloo on a CPU. Rows of a step are text and
episodes, so that parts of a step weigh differently. Compared with one process that makes each step in one pass: the
loss of every step, and all weights at the end, read from the checkpoint that the case wrote.

AdamW divides a moment by the root of another, so that where gradients are near zero, rounding becomes a step of the
size of the learning rate. The settings are the defaults (eps 1e-8), and nothing is excluded.

    mamba2, hybrid, attention    50 steps in float32, all cases
    NAME, float64                8 steps of every mixer: where rounding is not seen, a step is the same step
    NAME                         50 steps in float32 of the other mixers, some of which enlarge rounding from step to
                                 step, in two cases
"""

import functools
import json
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lcprobe.data.config import DataConfig
from lcprobe.data.mixture import Mixture
from lcprobe.data.prepare import Prepared, prepare
from lcprobe.errors import unknown_name
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers import MIXERS
from lcprobe.schema import build
from lcprobe.tracking import NoTracker
from lcprobe.training.checkpoint import latest
from lcprobe.training.config import TrainConfig
from lcprobe.training.fit import fit
from lcprobe.training.strategies.checks import shared_layers
from lcprobe.training.tensors.consolidate import weights_digest
from lcprobe.training.tensors.reading import Tensors
from validation.forked import SECONDS, run_forked

TITLE = "training divided over processes and passes, against one process, over gloo"
OPTIONS = ("models", "cases")
GROUP = ("model", "case")
STEPS, FEW, ROWS, LENGTH = 50, 8, 16, 64
LIMIT = 1e-5
"""Of differences in the loss of a step, and in a weight."""
SETTINGS: dict[str, dict[str, Any]] = {
    "attention": {"head_dim": 8, "d_conv": 4},
    "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16},
    "mamba1": {"d_state": 8},
    "mamba3": {"head_dim": 8, "d_state": 8, "chunk_size": 16, "definition": "softplus"},
    "rg_lru": {"n_blocks": 4},
    **{name: {"head_dim": 8} for name in MIXERS if name not in ("attention", "mamba1", "mamba2", "mamba3", "rg_lru")},
}
"""Of each mixer, small."""
TASK = {"type": "niah", "n_keys": 2, "n_queries": 2, "template": "line", "digits": 2}
DATA = {
    "recipes": {"lines": {"task": TASK}},
    "mixture": [{"lm": 0.25, "episodes": {"lines": 1}, "lengths": [1, 0.5]}],
}


@dataclass(frozen=True)
class Stage:
    """Steps up to `until` with some processes. settings: of `train`."""

    until: int
    processes: int = 1
    settings: dict[str, Any] = field(default_factory=dict)


def _whole(processes: int, **settings: Any) -> tuple[Stage, ...]:
    return (Stage(STEPS, processes, settings),)


def _few(processes: int, **settings: Any) -> tuple[Stage, ...]:
    return (Stage(FEW, processes, settings),)


FSDP2, TP = {"strategy": "fsdp2"}, {"strategy": "tp", "tensor_parallel": 2}
CASES: dict[str, Sequence[Stage]] = {
    "one": _whole(1),
    "accumulate 4": _whole(1, accumulate=4),
    "accumulate 16": _whole(1, accumulate=16),
    "ddp, 2": _whole(2),
    "ddp, 4": _whole(4),
    "ddp, 2, accumulate 4": _whole(2, accumulate=4),
    "fsdp2, 2": _whole(2, **FSDP2),
    "fsdp2, 4": _whole(4, **FSDP2),
    "fsdp2, 2, accumulate 4, recompute": _whole(2, **FSDP2, accumulate=4, recompute=True),
    "tp, 2": _whole(2, **TP),
    "tp, 4": _whole(4, strategy="tp", tensor_parallel=4),
    "tp, 2 of 2, accumulate 2": _whole(4, **TP, accumulate=2),
    "fsdp2, 2 of tp 2": _whole(4, strategy="fsdp2", tensor_parallel=2),
    "context 2": _whole(2, context_parallel=2),
    "fsdp2, context 2": _whole(2, strategy="fsdp2", context_parallel=2),
    "fsdp2, 2 of context 2, accumulate 2": _whole(4, strategy="fsdp2", context_parallel=2, accumulate=2),
    "tp, 2 of context 2": _whole(4, **TP, context_parallel=2),
    "fsdp2, 2 -> one -> fsdp2, 2": (Stage(17, 2, FSDP2), Stage(34), Stage(STEPS, 2, FSDP2)),
    "one -> fsdp2, 4 -> tp, 2 -> ddp, 2": (Stage(12), Stage(25, 4, FSDP2), Stage(37, 2, TP), Stage(STEPS, 2)),
    "tp, 2 -> fsdp2, 2 -> one": (Stage(17, 2, TP), Stage(34, 2, FSDP2), Stage(STEPS)),
}
"""What is compared with `one`."""
IN_FEW_STEPS: dict[str, Sequence[Stage]] = {
    "one": _few(1),
    "accumulate 4": _few(1, accumulate=4),
    "ddp, 2": _few(2),
    "fsdp2, 2, accumulate 2, recompute": _few(2, **FSDP2, accumulate=2, recompute=True),
    "tp, 2": _few(2, **TP),
    "fsdp2, 2 -> one": (Stage(FEW // 2, 2, FSDP2), Stage(FEW)),
}
TWO_CASES = {name: CASES[name] for name in ("one", "accumulate 4", "fsdp2, 2")}


@dataclass(frozen=True)
class Subject:
    """A model, in the dtype that it is trained in, and its cases."""

    layout: str
    cases: Mapping[str, Sequence[Stage]]
    dtype: torch.dtype = torch.float32

    def settings(self, vocab_size: int) -> dict[str, Any]:
        """Of a tiny model, of which heads and widths divide by four."""
        return {"layout": self.layout, "d_model": 32, "d_ff": 64, "vocab_size": vocab_size, "mixers": SETTINGS}


def _alone(mixer: str) -> str:
    """Two blocks of a mixer: with its own MLPs, where it has some."""
    return f"{mixer}+{mixer if mixer.startswith('rwkv') else 'mlp'} x 2"


IN_FLOAT32 = {"mamba2": "mamba2 x 2", "hybrid": "attention+mlp, mamba2", "attention": "attention+mlp x 2"}
MODELS: dict[str, Subject] = {
    **{name: Subject(layout, CASES) for name, layout in IN_FLOAT32.items()},
    **{f"{name}, float64": Subject(_alone(name), IN_FEW_STEPS, torch.float64) for name in MIXERS},
    **{name: Subject(_alone(name), TWO_CASES) for name in MIXERS if name not in IN_FLOAT32},
}
COMPILED = {
    "compiled, ddp, 2": _whole(2, compile=True),
    "compiled, context 2": _whole(2, context_parallel=2, compile=True),
}
"""The same by torch.compile with inductor, where there is a C++ compiler; of the hybrid alone, unless they are asked
for by name: compiling takes longer than all other cases."""
COMPILING = 1800
"""Seconds that processes which compile may take."""


class _Rows(NoTracker):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def metrics(self, values: dict[str, float]) -> None:
        """See Tracker."""
        self.losses[int(values["step"])] = values["train/loss"]


class _StopAt(pl.Callback):
    """Ends training after a step, as a scheduler would."""

    def __init__(self, step: int):
        self._step = step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Stop where the step is done."""
        trainer.should_stop = pl_module.progress.step >= self._step


def train_stage(
    prepared: Prepared, data: DataConfig, model: Subject, stage: Stage, steps: int, folder: Path
) -> dict[int, float]:
    """Train one stage in a run's folder; returns the loss of each of its steps. For each process of the stage."""
    settings = {
        "context_length": LENGTH,
        "batch_tokens": ROWS * LENGTH,
        "tokens": steps * ROWS * LENGTH,
        "checkpoint_every": stage.until * ROWS * LENGTH,
        "log_every": 1,
        "threads": 1,
        "accelerator": "cpu",
        "devices": stage.processes,
        **stage.settings,
    }
    config = build(TrainConfig, settings, "train")
    config.check("train")
    mixture = Mixture(data, prepared, context_length=LENGTH, rows=ROWS, steps=steps, parts=config.parts, seed=0)
    rows = _Rows()
    module = LanguageModel(build(ModelConfig, model.settings(prepared.tokenizer.vocab_size), "model")).to(model.dtype)
    stop = _StopAt(stage.until)
    fit(config, module, mixture, folder, seed=0, config_yaml="", tracker=rows, callbacks=[stop])
    return rows.losses


def train_case(
    prepared: Prepared, data: DataConfig, model: Subject, stages: Sequence[Stage], folder: Path
) -> dict[int, float]:
    """Train all stages of a case; returns the loss of each step."""
    losses: dict[int, float] = {}
    for stage in stages:
        seconds = COMPILING if stage.settings.get("compile") else SECONDS
        given = (prepared, data, model, stage, stages[-1].until, folder)
        losses |= run_forked(stage.processes, train_stage, *given, seconds=seconds)
    return losses


def differences(a: Path, b: Path) -> dict[str, torch.Tensor]:
    """Absolute differences between all weights of two runs' newest checkpoints, by name."""
    one, other = (Tensors(_newest(folder), "model") for folder in (a, b))
    assert one.entries.keys() == other.entries.keys()
    return {name: (one.read_whole(name) - other.read_whole(name)).abs() for name in one.entries}


def _newest(folder: Path) -> Path:
    found = latest(folder / "checkpoints")
    assert found is not None
    return found


def cases_of(name: str, vocab_size: int) -> list[str]:
    """Of a model, without tensor parallelism where it has no layer that can be shared."""
    with torch.device("meta"):
        model = LanguageModel(build(ModelConfig, MODELS[name].settings(vocab_size), "model"))
    cases = [case for case, stages in MODELS[name].cases.items() if shared_layers(model, 2) or not _shares(stages)]
    return [*cases, *COMPILED] if name == "hybrid" and shutil.which("g++") is not None else cases


def _shares(stages: Sequence[Stage]) -> bool:
    return any("tensor_parallel" in stage.settings for stage in stages)


@functools.cache
def corpus(folder: Path) -> tuple[Prepared, DataConfig]:
    """Sentences of random words, the same ones always, as a corpus, prepared in a folder."""
    dice = random.Random(0)
    words = ["".join(dice.choices("aeioulnrst", k=dice.randint(2, 8))) for _ in range(1000)]
    texts = (" ".join(dice.choices(words, k=200)) for _ in range(400))
    lines = [json.dumps({"text": text.replace(" a", ". A")}) for text in texts]
    (folder / "words.jsonl").write_text("\n".join(lines), encoding="utf-8")
    settings = {**DATA, "corpus": [str(folder / "words.jsonl")], "folder": str(folder / "data"), "held_out": 0.2}
    config = build(DataConfig, settings, "data")
    return prepare(config), config


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per model and case. options: models, cases (separated by semicolons)."""
    models = [name.strip() for name in options["models"].split(";")] if "models" in options else list(MODELS)
    asked = [name.strip() for name in options["cases"].split(";")] if "cases" in options else None
    every = {**CASES, **IN_FEW_STEPS, **COMPILED}
    for key, names, known in (("models", models, MODELS), ("cases", asked or [], every)):
        for name in names:
            if name not in known:
                raise unknown_name(key, name, known)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        prepared, data = corpus(root)
        for name in models:
            model = MODELS[name]
            stages_of = {**COMPILED, **model.cases}
            base = train_case(prepared, data, model, model.cases["one"], root / name / "one")
            for number, case in enumerate(cases_of(name, prepared.tokenizer.vocab_size) if asked is None else asked):
                if case == "one":
                    continue
                folder = root / name / str(number)
                losses = train_case(prepared, data, model, stages_of[case], folder)
                worst = max(abs(losses[step] - base[step]) for step in base)
                apart = differences(root / name / "one", folder)
                weights, where = max((float(values.max()), name) for name, values in apart.items())
                beyond = sum(int((values > LIMIT).sum()) for values in apart.values())
                same = weights_digest(_newest(folder)) == weights_digest(_newest(root / name / "one"))
                row = {
                    "model": name,
                    "case": case,
                    "steps": len(losses),
                    "last loss": round(losses[max(losses)], 6),
                    "loss differs by": worst,
                    "weights differ by": weights,
                    "most": where,
                    "weights beyond 1e-5": f"{beyond} of {sum(values.numel() for values in apart.values())}",
                    "same bytes": same,
                    "within 1e-5": max(worst, weights) <= LIMIT,
                }
                rows.append(row)
                print(*row.values(), sep="  ", flush=True)
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What a reader must know."""
    wide = [row for row in rows if row["model"].endswith("float64")]
    beyond = [f"{row['model']} {row['case']}" for row in rows if not row["within 1e-5"]]
    worst = [
        max((row[f"{what} differs by" if what == "loss" else f"{what} differ by"] for row in wide), default=0.0)
        for what in ("loss", "weights")
    ]
    return [
        f"{len(rows) - len(beyond)} of {len(rows)} cases are within 1e-5 in every loss and weight",
        *([f"beyond it: {', '.join(beyond)}"] if beyond else []),
        *(
            [f"in float64 ({len(wide)} cases): losses within {worst[0]:.1e}, weights within {worst[1]:.1e}"]
            if wide
            else []
        ),
        "same bytes: the weights have the digest of those of one process in one pass",
        "AdamW with eps 1e-8 and a learning rate of 1e-3; losses are per step, weights after the last",
    ]
