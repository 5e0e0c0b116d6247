"""The tables of `evaluate.py --plan`: hours and memory of each model, and of few models at each length."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from lcprobe.config import Config
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import ModelCost, model_cost, parts_of
from lcprobe.studies.console import print_rows, terminal
from lcprobe.studies.evaluation.variants import Variant
from lcprobe.studies.planning.probe_costs import UTILISATION, ProbedModel, Prompts, device_of, probe_cost_row

Work = dict[str, tuple[Variant, list[Prompts]]]
"""What variants read, by their names."""
FEW_ROWS = 48
"""Up to which the costs at each length are printed, too."""


def print_costs(work: Work, config: Config) -> None:
    """Print the costs of variants. work: by variant, what it reads; variants of one architecture that differ only in
    the seed are one row."""
    probe = config.probe
    half = probe.precision == "bf16" or probe.weights == "bf16"
    device, models = device_of(config.study.plan_for, half), _rows_of(work, probe.weights == "bf16")
    rows = [probe_cost_row(model, prompts, probe, device) for model, prompts in models]
    total = {"model": "all", "PFLOPs": sum(_number(row["PFLOPs"]) for row in rows)}
    for name in (f"hours, {device.name}", *(["GPU hours"] if device.gpu else [])):
        total[name] = float(f"{sum(_number(row[name]) for row in rows):.3g}")
    title = f"hours and memory, estimated ({UTILISATION:.0%} of the peak, {'bfloat16' if half else 'float32'})"
    print_rows([*rows, *([dict.fromkeys(rows[0], "") | total] if len(rows) > 1 else [])], title)
    lengths = sorted({one.length for _, prompts in models for one in prompts})
    if len(lengths) > 1 and len(lengths) * len(models) <= FEW_ROWS:
        print_rows(
            [
                probe_cost_row(model, own, probe, device)
                for model, prompts in models
                for length in lengths
                if (own := [one for one in prompts if one.length == length])
            ],
            "by length",
        )
    note = "read: shared prefixes once; hours: of one process; "
    note += (
        "GPUs: that hold one prompt, layers split, one at work" if device.gpu else "fits: into this machine's memory"
    )
    terminal().print(f"  {note}", soft_wrap=True)


def _rows_of(work: Work, half: bool) -> list[tuple[ProbedModel, Sequence[Prompts]]]:
    """Models with what they read; seeds of one group together."""
    found: dict[object, tuple[ProbedModel, Sequence[Prompts]]] = {}
    for variant, prompts in work.values():
        target, source = variant.target, variant.target.source
        sizes = None if source.engine != "native" else target.config.model
        name = (target.config.study.group or target.name) + variant.name.removeprefix(target.name)
        key = (name, repr(sizes), tuple(prompts))
        if key in found:
            model, own = found[key]
            found[key] = (replace(model, count=model.count + 1), own)
            continue
        fixed = source.cost(target.config)
        blocks = 1 if sizes is None else len(parts_of(sizes).blocks)
        cost = _cost_at(sizes, fixed)
        found[key] = (ProbedModel(name, cost, sizes, blocks, half and source.published is not None), prompts)
    return list(found.values())


def _cost_at(sizes: ModelConfig | None, fixed: ModelCost) -> Callable[[int], ModelCost]:
    """Cost at a length. fixed: that of a model whose mixers are not ours, whatever the length."""
    return cache(lambda length: fixed if sizes is None else model_cost(sizes, length))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
