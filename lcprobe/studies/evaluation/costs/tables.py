"""The tables of `evaluate.py --plan`: hours and memory of each model, and of few models at each length."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

from lcprobe.config import Config
from lcprobe.studies.console import print_rows, terminal
from lcprobe.studies.evaluation.variants import Variant
from lcprobe.studies.planning.probe_costs import UTILISATION, ProbedModel, Prompts, device_of, probe_cost_row

Work = dict[str, tuple[Variant, list[Prompts]]]
"""What variants read, by their names."""
ONE_LENGTH = "weights, states and GPUs: at the length of the row; tokens, FLOPs and hours: of all lengths up to it"
NOTES = {
    "transformers": "read: if the class's cache is right, which is tested at loading; else prompts are read whole",
    "estimated": "states: keys and values by config.json, an estimate without other states and activations",
    "unknown": "states unknown, so memory and GPUs too, and FLOPs are without attention's",
    "served": "read: whole for every candidate, less where the server keeps prefixes; its memory and GPUs are not "
    "known, and hours are as if it had the machine of the plan",
    "nothing": "parameters, FLOPs and hours unknown without probe.server.reference",
}
"""Of models by the engine that runs them."""
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
    for line in [note, ONE_LENGTH, *_notes(work)]:
        terminal().print(f"  {line}", highlight=False, soft_wrap=True)


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
        cost = cache(partial(source.cost_at, target.config))
        if source.served:
            prompts = [replace(p, new=1.0, reads=p.candidates + (1 if p.greedy else 0)) for p in prompts]
        model = ProbedModel(name, cost, sizes, source.n_blocks(target.config), half and source.published is not None)
        found[key] = (
            replace(model, served=source.served, knows_state=source.knows_state(target.config)),
            prompts,
        )
    return list(found.values())


def _notes(work: Work) -> list[str]:
    """What the rows of models on other engines mean."""
    engines: dict[str, list[str]] = {}
    for variant, _ in work.values():
        source, config, name = variant.target.source, variant.target.config, variant.name
        if source.served:
            engines.setdefault("served", []).append(name)
            if not source.cost(config).params:
                engines.setdefault("nothing", []).append(name)
        elif source.engine != "native":
            engines.setdefault("transformers", []).append(name)
            engines.setdefault("estimated" if source.knows_state(config) else "unknown", []).append(name)
    return [f"{text}: {', '.join(engines[kind])}" for kind, text in NOTES.items() if kind in engines]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
