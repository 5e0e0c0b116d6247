"""What a study costs: the table of its models that `--plan` prints and the report shows, and whether they fit a device."""

import os
import time
from typing import Any

from lcprobe.studies.planning.plan import Run, StudyPlan

GPU_PEAK = {"a100": 312e12, "h100": 989e12, "h200": 989e12}
"""FLOP/s of dense bfloat16 products, as the makers state them."""
GPU_MEMORY = {"a100": 80e9, "h100": 80e9, "h200": 141e9}
"""Bytes."""


def matching_table(plan: StudyPlan) -> list[dict[str, Any]]:
    """One row a model: the table that `--plan` prints and the report shows."""
    rows = []
    machine = plan.config.study.plan_for
    peak = measured_peak() if machine == "here" else GPU_PEAK[machine]
    seen = set()
    for run in plan.runs:
        if run.group in seen:
            continue
        seen.add(run.group)
        c, cost, train = run.matched.config, run.matched.cost, run.config.train
        hours, gigabytes = _hours(run, peak), sum(_memory(run, train.accumulate)) / 1e9
        off = run.matched.mismatch
        rows.append(
            {
                "model": run.group,
                "layout": c.layout + (f" (n_layers {c.n_layers})" if c.n_layers else ""),
                "d_model": c.d_model,
                "d_ff": c.d_ff,
                "parameters": cost.params,
                "embedding": cost.embedding,
                "off budget": "" if off is None else f"{off:+.2%}",
                f"state bytes @{train.context_length}": cost.blocks.state_bytes,
                f"KV bytes @{train.context_length}": cost.blocks.kv_bytes,
                f"FLOPs/token @{train.context_length}": round(cost.flops),
                "tokens": train.tokens,
                "lr": train.lr,
                f"hours, {machine} (est.)": round(hours, 4) if hours < 0.1 else round(hours, 2),
                "memory GB (est.)": round(gigabytes, 2),
            }
        )
    return rows


def memory_notes(plan: StudyPlan) -> list[str]:
    """A line for the models that the plan's machine has not the memory for, with what would help; none where all fit."""
    machine = plan.config.study.plan_for
    has = _memory_here() if machine == "here" else GPU_MEMORY[machine]
    models = {run.group: run for run in reversed(plan.runs)}
    needs = {group: sum(_memory(run, run.config.train.accumulate)) for group, run in models.items()}
    large = [group for group, bytes_ in needs.items() if has is not None and bytes_ > has]
    if not large or has is None:
        return []
    run = models[max(large, key=lambda group: needs[group])]
    train, fixed = run.config.train, _memory(run, 1)[0]
    named = ", ".join(large[::-1][:3]) + (f" and {len(large) - 3} more" if len(large) > 3 else "")
    parts = train.rows // train.devices
    fits = [a for a in range(train.accumulate + 1, parts + 1) if parts % a == 0 and sum(_memory(run, a)) <= has]
    if fits:
        helps = f"train.accumulate={fits[0]} would fit (rows of one forward pass take the rest)"
    elif fixed > has:
        helps = "every device holds all of them: a larger device, or sharding (FSDP), which training does not do"
    else:
        helps = "more train.devices with fewer rows each, a shorter train.context_length, or a larger device"
    where = "this machine" if machine == "here" else machine.upper()
    return [
        f"too large for {where} ({has / 1e9:.0f} GB a device): {named}, about "
        f"{needs[run.group] / 1e9:.0f} GB; weights, gradients and moments are {fixed / 1e9:.0f} GB of it; {helps}"
    ]


def _hours(run: Run, peak: float) -> float:
    """At a utilisation seen at this size."""
    train, width = run.config.train, run.matched.config.d_model or 1
    share = min(0.4, 0.2 + width / 4000)  # of the peak of matrix products; 0.2 to 0.5 were measured at d_model 64
    return 3 * run.matched.cost.flops * train.tokens / (peak * share * train.devices) / 3600


def _memory(run: Run, accumulate: int) -> tuple[float, float]:
    """Bytes a device, estimated: of weights, gradients and moments, and of what a forward pass keeps."""
    cost, train, width = run.matched.cost, run.config.train, run.matched.config.d_model or 1
    sublayers = max(1, (cost.blocks.params // (4 * width * width)))
    return 16.0 * cost.params, train.batch_tokens / accumulate / train.devices * width * 4 * 10 * sublayers


def _memory_here() -> float | None:
    """Bytes of a GPU, or of the machine where there is none; None where nobody can tell."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None


def measured_peak() -> float:
    """This machine's matrix products, FLOP/s: float32 on a CPU, bfloat16 on a GPU. A fifth of a second."""
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
