"""Sizes and costs of a study's models: rows for `--plan` and the report, and whether the models fit into a device's
memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lcprobe.analysis.inputs import Value
from lcprobe.config import Config
from lcprobe.data.mixture import MAX_KEPT_TOKENS
from lcprobe.errors import listed
from lcprobe.lengths import schedule_text
from lcprobe.models.parts import ModelCost
from lcprobe.studies.planning.equal_budgets import in_words
from lcprobe.studies.planning.memory.estimate import gpu_here, memory_of
from lcprobe.studies.planning.plan import PlannedRun, StudyPlan
from lcprobe.training.host import host_seconds
from lcprobe.training.loading.data_path import tokens_of_a_core
from lcprobe.training.loading.workers import WORKERS_OF_A_GPU, cores_here, workers_of
from lcprobe.words import short

GPU_PEAK = {"a100": 312e12, "h100": 989e12, "h200": 989e12}
"""Peak FLOP/s of dense bfloat16 products, from the data sheets."""

DATA_PATH_MFU = 0.5
"""Share of the peak at which devices are taken to train, for what the data path has to make: more than is planned
for."""
DATA_PATH_WORKERS = 8


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
        hours, gigabytes = _hours(run, peak), memory_of(run).total / 1e9
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


def data_notes(plan: StudyPlan) -> list[str]:
    """A line on what the data path has to make for the plan's machine and what it makes, of the model that takes
    most."""
    machine = plan.config.study.plan_for
    peak = measured_peak() if machine == "here" else GPU_PEAK[machine]
    needs = {run.group: tokens_taken(run, peak) for run in plan.runs}
    run = max(plan.runs, key=lambda one: needs[one.group])
    train, data, need = run.config.train, run.config.data, needs[run.group]
    ends = [0.0, *(stage.until for stage in data.mixture)]
    shares = [1 - stage.lm if stage.episodes else 0.0 for stage in data.mixture]
    episodes = sum(share * (end - begin) for share, begin, end in zip(shares, ends[:-1], ends[1:], strict=True))
    core = tokens_of_a_core(episodes, train.context_length)
    gpu, kept = machine != "here" or gpu_here(), train.trained_tokens <= MAX_KEPT_TOKENS
    cores = cores_here() if machine == "here" else WORKERS_OF_A_GPU + 1
    workers = workers_of(train, gpu=gpu, kept=kept, cores=cores)
    figure = f"{short(round(core))} a core as benchmarked, {episodes:.0%} episodes at {train.context_length:,} tokens"
    takes = f"data path: {run.group} takes {short(round(need))} tokens/s at {DATA_PATH_MFU:.0%} of the peak"
    if not workers:
        return [f"{takes}; the training process makes them itself in {need / core / train.devices:.1%} of its time"
                f" ({figure})"]  # fmt: skip
    own, times = workers * train.data_parallel, core / need
    made = f"train.workers={workers} on each of {train.data_parallel} make {own * times:.1f} times that"
    eight = "" if own == DATA_PATH_WORKERS else f", {DATA_PATH_WORKERS} in all {DATA_PATH_WORKERS * times:.1f}"
    return [f"{takes}; {made}{eight} ({figure})"]


def tokens_taken(run: PlannedRun, peak: float) -> float:
    """Tokens per second that a run's devices train on at DATA_PATH_MFU of their peak."""
    return run.config.train.devices * peak * DATA_PATH_MFU / training_flops(run.matched.cost, 1)


def _hours(run: PlannedRun, peak: float) -> float:
    """Training time: a step takes the device's time, at the utilisation measured for models of this width, or a
    GPU's host's time, whichever is longer."""
    train, width = run.config.train, run.matched.config.d_model or 1
    utilisation = min(
        0.4, 0.2 + width / 4000
    )  # of the peak of matrix products; 0.2 to 0.5 were measured at d_model 64
    passes = 4 / 3 if train.recompute else 1
    seconds = training_flops(run.matched.cost, train.batch_tokens) * passes / (peak * utilisation * train.devices)
    if run.config.study.plan_for != "here" or gpu_here():
        seconds = max(seconds, host_seconds(run.matched.config, train))
    return train.steps * seconds / 3600


@cache
def measured_peak() -> float:
    """FLOP/s of matrix products on this machine, float32 on a CPU, bfloat16 on a GPU. Takes a fifth of a second, once
    a process."""
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
