"""Probe a model with a task, in memory: `lcprobe.probe(model, "ruler/niah_multikey_1", lengths=[512,
1024]).accuracy()`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import torch

from lcprobe.analysis.stats.intervals import clustered_wilson
from lcprobe.api.models import Model, checked_device
from lcprobe.errors import ConfigError, EpisodeError, listed, require, unknown_name
from lcprobe.lengths import in_tokens
from lcprobe.probing.config import Grid, Precision, ProbeConfig
from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.engines.narrow import in_precision
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.runner import ProbedCheckpoint, run_plan
from lcprobe.probing.scoring import ModelScorer
from lcprobe.probing.store import MemoryStore
from lcprobe.probing.units import Plan
from lcprobe.schema import build
from lcprobe.tasks.presets import choose_task
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.templates import NAMED_TEMPLATES, PromptTemplate
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    import pandas as pd

GROUPS = ("task", "haystack", "key_format", "value_format", "control", "length", "depth", "query")


@dataclass(frozen=True)
class ProbeResult:
    """records: one row per query, columns as in the records of `evaluate.py`. notes: cells that were left out, and
    why."""

    records: pa.Table
    notes: list[str]

    def accuracy(self, by: str | Sequence[str] = ("length", "depth")) -> "pd.DataFrame":
        """Exact match per group: columns of `by`, then accuracy, low, high, chance, n, samples.

        low, high: Wilson's 95 % interval at the effective sample size (samples are clusters). chance: mean score of
        choosing a value of the context without looking at the key. n: queries; those that ran out of memory are not
        counted. Raises ConfigError for a column that is no factor.
        """
        import pandas as pd

        by = [by] if isinstance(by, str) else list(by)
        require("by", by, len(by) > 0, f"at least one of {' | '.join(GROUPS)}")
        for name in by:
            if name not in GROUPS:
                raise unknown_name("by", name, GROUPS)
        table = self.records.to_pandas()
        table = table[table["status"] == "ok"]
        rows = []
        for key, group in table.groupby(list(by), sort=True):
            samples = group.groupby("index")["exact"].agg(["sum", "count"])
            low, high = clustered_wilson(samples["sum"].to_numpy(np.int64), samples["count"].to_numpy(np.int64))
            levels = dict(zip(by, key, strict=True))
            counts = {"chance": group["chance"].mean(), "n": len(group), "samples": len(samples)}
            share = float(group["exact"].astype(float).mean())
            rows.append({**levels, "accuracy": share, "low": float(low), "high": float(high), **counts})
        return pd.DataFrame(rows, columns=[*by, "accuracy", "low", "high", "chance", "n", "samples"])


def probe(
    model: Model | ProbedModel,
    task: str | Mapping[str, Any],
    *,
    lengths: int | Sequence[int],
    depths: int = Grid.depths,
    n: int = 50,
    haystack: str | Sequence[str] | None = None,
    key: str | Sequence[str] = "words",
    value: str | Sequence[str] = "numbers",
    controls: str | Sequence[str] = "none",
    tokenizer: str | Tokenizer | None = None,
    template: str | PromptTemplate = "none",
    scoring: Literal["teacher_forced", "generate"] = "teacher_forced",
    precision: Precision = "32",
    batch_tokens: int = 32_768,
    chunk: int = 1024,
    device: str | None = None,
) -> ProbeResult:
    """Probe a model with n samples of a task at every length (in tokens), stratum of depth and format; nothing is
    written.

    model: from `load_checkpoint`, or a ProbedModel of your own, for which `tokenizer` (an object, a tokenizer.json
    or what `data.tokenizer` takes) and `device` say what it reads and where it is. task: a name, a preset, or a
    mapping with `type`. depths: strata of equal width, in each of which every sample's target needle has a drawn
    place; 1: anywhere. haystack: None is held-out text of the model's corpus where it has one, else `noise`.
    Without the haystack `corpus` no corpus is opened and keys and values are not kept out of it: they may be others
    than in `evaluate.py`, which always opens it. key, value, haystack, controls: one level or several, which are
    crossed. template: around every prompt, none, instruction or rwkv, or a PromptTemplate (of a model's folder:
    lcprobe.tasks.text.chat_template.chat_template_of). precision: 32, the dtype of the weights, or bf16, bfloat16
    autocast.

    Raises ConfigError for settings that cannot work, EpisodeError where no cell fits the lengths.
    """
    if isinstance(model, Model):
        if tokenizer is not None:
            raise ConfigError("tokenizer", tokenizer, "none: a checkpoint has its own")
        require("device", device, device is None, "None: a checkpoint is on the device that it was loaded to")
        module, materials, device, checkpoint = model.module, None, model.device, model.checkpoint
    else:
        if tokenizer is None:
            raise ConfigError("tokenizer", tokenizer, "the tokenizer that the model was trained with")
        loaded = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        module, materials, device = model, Materials(loaded), checked_device(device or "cpu")
        checkpoint = ProbedCheckpoint(type(model).__name__, "none", 0, 0)
    haystacks = _levels(haystack) if haystack is not None else ["corpus" if isinstance(model, Model) else "noise"]
    if materials is None:
        assert isinstance(model, Model)
        materials = model.materials if "corpus" in haystacks else Materials(model.tokenizer)
    if isinstance(template, str):
        if template not in NAMED_TEMPLATES:
            raise unknown_name("template", template, NAMED_TEMPLATES)
        template = NAMED_TEMPLATES[template]
    materials = materials.with_template(template)
    choice = choose_task(task, "task")
    tokens = [lengths] if isinstance(lengths, int) else list(lengths)
    require("lengths", lengths, all(isinstance(n, int) and n >= 1 for n in tokens), "whole numbers of tokens >= 1")
    settings = {
        "lengths": in_tokens(*tokens), "depths": depths, "n": n, "haystack": haystacks,
        "key": _levels(key), "value": _levels(value), "controls": _levels(controls),
    }  # fmt: skip
    config = {"tasks": {choice.choice.name: choice}, "scoring": scoring, "batch_tokens": batch_tokens, "chunk": chunk}
    config["precision"] = precision
    tasks = TaskSet(build(ProbeConfig, config, "probe"), materials)
    plan = tasks.plan([build(Grid, settings, "grid")])
    plan = _readable(plan, module.max_length)
    if not plan.units:
        raise EpisodeError("lengths", tokens, f"lengths at which a cell fits ({listed(plan.notes, '; ')})")
    checkpoint = replace(checkpoint, precision=precision)
    scorer = ModelScorer(
        in_precision(module, precision),
        materials.tokenizer,
        torch.device(device),
        chunk,
        scoring == "generate",
        batch_tokens,
    )
    store = MemoryStore()
    units = run_plan(plan, tasks, scorer, checkpoint, store, batch_tokens=batch_tokens, scoring=scoring)
    notes = [*plan.notes, *map(str, tasks.not_made.values())]
    if not units:
        raise EpisodeError("lengths", tokens, f"lengths at which a cell can be made ({listed(notes, '; ')})")
    return ProbeResult(store.read(units), notes)


def _readable(plan: Plan, max_length: int | None) -> Plan:
    """Leave out, with a note, the cells beyond the longest sequence that a model can read."""
    units = [unit for unit in plan.units if max_length is None or unit.length <= max_length]
    beyond = sorted({unit.length for unit in plan.units} - {unit.length for unit in units})
    lengths = ", ".join(map(str, beyond))
    notes = [f"{lengths} tokens are left out: the model's positions end at {max_length}"] if beyond else []
    return Plan(units, [*plan.notes, *notes])


def _levels(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)
