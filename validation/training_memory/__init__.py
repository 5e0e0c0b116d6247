"""Memory of a training step: what `--plan` estimates beside the peak of the tensors that are alive.

    computed          one process trains a step on a CPU
    2 processes       processes train steps over gloo, divided as a run is; the one that takes most
    without values    the shapes of 130 M and 2.7 B with the kernels and precision of a GPU, on tensors without values

The peak is that of the bytes of all tensors that are alive, by storage. Without values the workspace of the fused
loss is taken from its own limits, what other kernels have inside is not counted, and all else is what PyTorch would
allocate: also inside gated_linear_attention, which is products of PyTorch's on every device. On a GPU also what its
allocator had at most.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lcprobe.data.config import DataConfig
from lcprobe.data.prepare import prepare
from lcprobe.data.sources.sotu import speeches
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import model_cost
from lcprobe.schema import build
from lcprobe.studies.planning.memory.estimate import estimated
from lcprobe.training.config import TrainConfig
from lcprobe.words.counts import counted
from validation.forked import run_forked
from validation.training_memory.alone import peak_computed, peak_without_values
from validation.training_memory.divided import STEPS, peak_of_process
from validation.training_memory.sizes import ARCHITECTURES, OTHER_MIXERS, Size, config_of

TITLE = "memory of a training step: estimated by --plan, and the peak of all tensors that are alive"
OPTIONS = ("sizes", "models")
GROUP = ("size", "model")
SPEECHES = 8
"""That processes train on."""
PLAIN: Mapping[str, Mapping[str, Any]] = {"": {}}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "accumulate": {"accumulate": 2},
    "recompute": {"recompute": True},
    "bf16": {"precision": "bf16"},
    "bf16, recompute": {"precision": "bf16", "recompute": True},
}
OF_MIXERS = {name: SETTINGS[name] for name in ("", "recompute", "bf16, recompute")}
NARROW = {name: given for name, given in SETTINGS.items() if "precision" in given}
DDP, FSDP2 = {"devices": 2, "strategy": "ddp"}, {"devices": 2, "strategy": "fsdp2"}
TP = {"devices": 2, "strategy": "tp", "tensor_parallel": 2}
WHOLE_RUNS: Mapping[str, Mapping[str, Any]] = {"ddp": DDP, "fsdp2": FSDP2, "tp": TP}
DIVISIONS: Mapping[str, Mapping[str, Any]] = {
    "one": {},
    "ddp": DDP,
    "ddp, accumulate": {**DDP, "accumulate": 2},
    "ddp, bf16, recompute": {**DDP, "precision": "bf16", "recompute": True},
    "fsdp2": FSDP2,
    "fsdp2, accumulate": {**FSDP2, "accumulate": 2},
    "fsdp2, bf16, recompute": {**FSDP2, "precision": "bf16", "recompute": True},
    "tp": TP,
    "tp, accumulate": {**TP, "accumulate": 2},
    "fsdp2, 4 with tp 2": {"devices": 4, "strategy": "fsdp2", "tensor_parallel": 2},
}


@dataclass(frozen=True)
class Case:
    """A size, and with which settings of training it is measured. how: computed, processes or without values."""

    size: Size
    how: str
    settings: Mapping[str, Mapping[str, Any]]
    models: tuple[str, ...] = ARCHITECTURES


SMALL = Size("small", 256, 640, 4, (1,), 4096, 512, 2, 64, 64)
OF_130M = Size("130M", 768, 2048, 24, (8, 16), 50_277, 2048, 4, 64, 128)
DIVIDED = Size("small, divided", 256, 640, 8, (1, 5), 4096, 64, 4, 64, 64)
PARTLY_SHARED = ("gla", "gated_deltanet", "mamba1")
"""Of these, processes share at most the MLPs."""
CASES = (
    Case(SMALL, "computed", SETTINGS),
    Case(SMALL, "computed", OF_MIXERS, OTHER_MIXERS),
    Case(Size("130M, short", 768, 2048, 24, (8, 16), 50_277, 256, 1, 64, 128), "computed", PLAIN),
    Case(DIVIDED, "processes", DIVISIONS),
    Case(DIVIDED, "processes", {"tp": TP}, PARTLY_SHARED),
    Case(
        Size("130M, divided", 768, 2048, 24, (8, 16), 50_277, 128, 1, 64, 128), "processes", WHOLE_RUNS, ("hybrid",)
    ),
    Case(OF_130M, "without values", NARROW),
    Case(OF_130M, "without values", NARROW, OTHER_MIXERS),
    Case(Size("2.7B", 2560, 6912, 64, (9, 18, 27, 36, 45, 56), 50_277, 2048, 1, 128, 128), "without values", NARROW),
)


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per size, architecture and setting. options: sizes (separated by semicolons), models."""
    sizes = options["sizes"].split(";") if "sizes" in options else [case.size.name for case in CASES]
    models = options["models"].split(",") if "models" in options else [*ARCHITECTURES, *OTHER_MIXERS]
    rows = []
    with TemporaryDirectory() as folder:
        for case in (case for case in CASES if case.size.name in sizes):
            for architecture in (model for model in case.models if model in models):
                for setting, given in case.settings.items():
                    rows.append(_row(case, architecture, setting, given, folder))
                    print(rows[-1], flush=True)
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """The estimate that is farthest from the peak, in each of the ways to find it."""
    off: dict[str, list[float]] = {}
    for row in rows:
        off.setdefault(row["how"], []).append(row["off %"])
    farthest = [f"farthest, {how} ({len(values)}): {max(values, key=abs):+.1f} %" for how, values in off.items()]
    return [*farthest, "gloo's and NCCL's own buffers, the CUDA context and gaps of the allocator are in no row"]


def _row(case: Case, architecture: str, setting: str, given: Mapping[str, Any], folder: str) -> dict[str, Any]:
    size, gpu = case.size, case.how == "without values"
    config, train = config_of(size, architecture), _train(size, given)
    cost = model_cost(config, size.seqlen)
    documents = case.how == "processes"  # rows of theirs have several, as those of a run do
    estimate = estimated(config, cost, train, documents=documents, gpu=gpu).total
    if case.how == "processes":
        peak = _peak_of_processes(config, train, folder)
    else:
        peak = (peak_without_values if gpu else peak_computed)(config, train, size)
    row = {
        "size": size.name, "model": architecture, "setting": setting, "parameters": cost.params,
        "rows x tokens": f"{size.rows} x {size.seqlen}", "estimated MB": round(estimate / 1e6, 1),
        "how": counted(train.devices, "process") if case.how == "processes" else case.how,
        "peak MB": round(peak / 1e6, 1), "off %": round(100 * (estimate / peak - 1), 1),
    }  # fmt: skip
    if torch.cuda.is_available() and gpu:
        there = peak_computed(config, train, size, "cuda") if cost.params < 1e9 else None
        row["GPU MB"] = None if there is None else round(there / 1e6, 1)
    return row


def _train(size: Size, given: Mapping[str, Any]) -> TrainConfig:
    """Settings under which each process has the rows of its size in a forward pass."""
    groups = given.get("devices", 1) // given.get("tensor_parallel", 1)
    batch = size.rows * size.seqlen * given.get("accumulate", 1) * groups
    base = {"context_length": size.seqlen, "batch_tokens": batch, "tokens": STEPS * batch, "log_every": STEPS}
    train = build(TrainConfig, {**base, "accelerator": "cpu", "threads": 1, **given}, "train")
    train.check("train")
    return train


def _peak_of_processes(config: ModelConfig, train: TrainConfig, folder: str) -> float:
    """Of processes that train on sentences, each a document: most rows have several."""
    path = Path(folder) / "sentences.jsonl"
    sentences = [text for speech in islice(speeches(), SPEECHES) for text in speech.split(". ")]
    if not path.exists():
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences), encoding="utf-8")
    data = build(DataConfig, {"corpus": [str(path)], "folder": folder}, "data")
    return run_forked(train.devices, peak_of_process, prepare(data), data, config, train)
