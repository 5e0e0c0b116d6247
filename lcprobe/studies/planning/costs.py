"""Sizes and costs of a study's models: rows for `--plan` and the report, and whether the models fit into a device's
memory."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lcprobe.analysis.inputs import Value
from lcprobe.config import Config
from lcprobe.errors import listed
from lcprobe.lengths import schedule_text
from lcprobe.models.parts import ModelCost, parts_of
from lcprobe.studies.planning.equal_budgets import in_words
from lcprobe.studies.planning.plan import PlannedRun, StudyPlan
from lcprobe.studies.runtime import machine_memory

GPU_PEAK = {"a100": 312e12, "h100": 989e12, "h200": 989e12}
"""Peak FLOP/s of dense bfloat16 products, from the data sheets."""
GPU_MEMORY = {"a100": 80e9, "h100": 80e9, "h200": 141e9}
"""Memory in bytes."""


@dataclass(frozen=True)
class Sized:
    """A model of a table of sizes. cost: at its training length; tokens: trained on; published: whether others
    trained it, so that its config says nothing of how, and 0 tokens are unknown ones."""

    name: str
    config: Config
    cost: ModelCost
    tokens: int
    published: bool = False


def size_rows(models: Sequence[Sized]) -> list[dict[str, Value]]:
    """Sizes of models as the plan and the report print them, at each model's training length: a column of its own
    where they differ, and then also the training FLOPs, and steps and batches that differ. None: not known of a
    published model."""
    lengths = {model.config.train.context_length for model in models}
    trained_here = [model.config.train for model in models if not model.published]
    batches = {train.batch_tokens for train in trained_here}
    steps = {train.steps for train in trained_here}
    several = len(lengths) > 1
    at = "" if several else f" @{min(lengths)}"
    rows = []
    for model in models:
        sizes, train, here = model.config.model, model.config.train, not model.published
        tokens = model.tokens if here or model.tokens else None
        row: dict[str, Value] = {"model": model.name}
        row |= {"training length": train.context_length} if several else {}
        row |= {
            "layout": sizes.layout + (f" (n_layers {sizes.n_layers})" if sizes.n_layers else ""),
            "d_model": sizes.d_model,
            "d_ff": sizes.d_ff,
            "parameters": model.cost.params,
            "embedding": model.cost.embedding,
            f"state bytes{at}": model.cost.blocks.state_bytes,
            f"KV bytes{at}": model.cost.blocks.kv_bytes,
            f"FLOPs/token{at}": round(model.cost.flops),
            "tokens": tokens,
        }
        row |= {"batch tokens": train.batch_tokens if here else None} if several and len(batches) > 1 else {}
        row |= {"steps": train.steps if here else None} if several and len(steps) > 1 else {}
        if several:
            row["training FLOPs"] = None if tokens is None else training_flops(model.cost, tokens)
        rows.append(row | ({"lr": train.lr if here else None} if trained_here else {}))
    return rows


def training_flops(cost: ModelCost, tokens: int) -> float:
    """FLOPs of training, forward and backward. cost: at the training length."""
    return 3 * cost.flops * tokens


def matching_table(plan: StudyPlan) -> list[dict[str, Value]]:
    """One row per model: the table that `--plan` prints."""
    machine = plan.config.study.plan_for
    peak = measured_peak() if machine == "here" else GPU_PEAK[machine]
    models: dict[str, PlannedRun] = {}
    for run in plan.runs:
        models.setdefault(run.group, run)
    sized = [
        Sized(name, run.config, run.matched.cost, run.config.train.trained_tokens) for name, run in models.items()
    ]
    rows = []
    for row, run in zip(size_rows(sized), models.values(), strict=True):
        mismatch = run.matched.mismatch
        hours, gigabytes = _hours(run, peak), sum(_memory(run, run.config.train.accumulate)) / 1e9
        rows.append(
            {
                **row,
                "off budget": "" if mismatch is None else f"{mismatch:+.2%}",
                f"hours, {machine} (est.)": round(hours, 4) if hours < 0.1 else round(hours, 2),
                "memory GB (est.)": round(gigabytes, 2),
            }
        )
    return rows


def held_equal_note(plan: StudyPlan) -> list[str]:
    """A line on what is held equal across training lengths; none where there is one length."""
    if len({run.config.train.context_length for run in plan.runs}) < 2:
        return []
    return [f"held equal across training lengths: {in_words(plan.config.match)}"]


def whole_steps_notes(plan: StudyPlan) -> list[str]:
    """A line on each budget of a run, and of the trials of a sweep, that is no whole number of steps: what is left of
    it is not trained."""
    budgets: dict[tuple[str, int, int], list[str]] = {}
    sweep = plan.config.study.lr_sweep
    for run in plan.runs:
        train, given = run.config.train, {"train.tokens": run.config.train.tokens}
        if sweep.lrs and sweep.tokens < train.tokens:  # otherwise a trial is as long as the run
            given["study.lr_sweep.tokens"] = sweep.tokens
        for key, tokens in given.items():
            if tokens % train.batch_tokens:
                budgets.setdefault((key, tokens, train.batch_tokens), []).append(run.group)
    return [
        f"{key}: {tokens:,} is no multiple of train.batch_tokens ({batch:,}), so that "
        f"{tokens // batch * batch:,} are trained: {listed(dict.fromkeys(groups), ', ')}"
        for (key, tokens, batch), groups in budgets.items()
    ]


def schedule_notes(plan: StudyPlan) -> list[str]:
    """A line on each curriculum of context lengths, with the models that have it."""
    groups: dict[str, list[str]] = {}
    for run in plan.runs:
        schedule = schedule_text(run.config.train.length_schedule, run.config.train.context_length)
        if schedule and run.group not in groups.setdefault(schedule, []):
            groups[schedule].append(run.group)
    costs = "FLOPs, hours and memory are those of the training length"
    return [f"context length {schedule} ({costs}): {', '.join(names)}" for schedule, names in groups.items()]


def memory_notes(plan: StudyPlan) -> list[str]:
    """A line about models that do not fit into the memory of the plan's machine, with a remedy; none where all
    fit."""
    machine = plan.config.study.plan_for
    available = memory_here() if machine == "here" else GPU_MEMORY[machine]
    models = {run.group: run for run in reversed(plan.runs)}
    needs = {group: sum(_memory(run, run.config.train.accumulate)) for group, run in models.items()}
    large = [group for group, bytes_ in needs.items() if available is not None and bytes_ > available]
    if not large or available is None:
        return []
    run = models[max(large, key=lambda group: needs[group])]
    train, fixed = run.config.train, _memory(run, 1)[0]
    named = ", ".join(large[::-1][:3]) + (f" and {len(large) - 3} more" if len(large) > 3 else "")
    parts = train.rows // train.devices
    fits = [a for a in divisors(parts) if a > train.accumulate and sum(_memory(run, a)) <= available]
    if fits:
        remedy = f"train.accumulate={fits[0]} would fit (activations of one forward pass take the rest)"
    elif sum(_memory(_recomputing(run), train.accumulate)) <= available:
        remedy = "train.recompute=true would fit (a third more compute)"
    elif fixed > available:
        remedy = (
            "every device has a full copy: use a larger device, or sharding (FSDP), which training does not support"
        )
    else:
        remedy = "use more train.devices with fewer rows each, a shorter train.context_length, or a larger device"
    where = "this machine" if machine == "here" else machine.upper()
    return [
        f"too large for {where} ({available / 1e9:.0f} GB per device): {named}, about "
        f"{needs[run.group] / 1e9:.0f} GB; weights, gradients and moments are {fixed / 1e9:.0f} GB of it; {remedy}"
    ]


def divisors(n: int) -> list[int]:
    """Of a number, ascending."""
    small = [a for a in range(1, math.isqrt(n) + 1) if n % a == 0]
    return sorted({*small, *(n // a for a in small)})


def _hours(run: PlannedRun, peak: float) -> float:
    """Training time, at the utilisation measured for models of this width."""
    train, width = run.config.train, run.matched.config.d_model or 1
    utilisation = min(
        0.4, 0.2 + width / 4000
    )  # of the peak of matrix products; 0.2 to 0.5 were measured at d_model 64
    flops = training_flops(run.matched.cost, train.trained_tokens) * (4 / 3 if train.recompute else 1)
    return flops / (peak * utilisation * train.devices) / 3600


def _memory(run: PlannedRun, accumulate: int) -> tuple[float, float]:
    """Estimated bytes per device: of weights, gradients and moments, and of the activations of a forward pass."""
    cost, train, width = run.matched.cost, run.config.train, run.matched.config.d_model or 1
    sublayers = max(1, (cost.blocks.params // (4 * width * width)))
    floats, tokens = 10 * sublayers, train.batch_tokens / accumulate / train.devices
    if train.recompute:  # input and residual of every block, and all of one block
        blocks = len(parts_of(run.matched.config).blocks)
        floats = 2 * blocks + floats / blocks
    return 16.0 * cost.params, tokens * width * 4 * floats


def _recomputing(run: PlannedRun) -> PlannedRun:
    return replace(run, config=replace(run.config, train=replace(run.config.train, recompute=True)))


def gpu_here() -> bool:
    """Whether this machine has a GPU."""
    import torch

    return torch.cuda.is_available()


def memory_here() -> float | None:
    """Memory in bytes of the GPU, or of the machine where there is none; None where it is unknown."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return machine_memory()


def measured_peak() -> float:
    """FLOP/s of matrix products on this machine, float32 on a CPU, bfloat16 on a GPU. Takes a fifth of a second."""
    import torch

    gpu = torch.cuda.is_available()
    size, dtype, device = (8192, torch.bfloat16, "cuda") if gpu else (1024, torch.float32, "cpu")
    a = torch.ones(size, size, dtype=dtype, device=device)
    best = 0.0
    for _ in range(5):
        begin = time.perf_counter()
        b = a @ a
        float(b[0, 0])  # waits for the device
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best
