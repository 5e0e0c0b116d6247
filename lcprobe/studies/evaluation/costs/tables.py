"""The tables of `evaluate.py --plan`: hours and memory of each model, and of few models at each length."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

from lcprobe.analysis.inputs import Value
from lcprobe.config import Config
from lcprobe.studies.console import print_rows, say
from lcprobe.studies.evaluation.groups import group_names
from lcprobe.studies.evaluation.variants import Variant
from lcprobe.studies.planning.probe_costs import (
    UTILISATION,
    Device,
    ProbedModel,
    Prompts,
    device_of,
    probe_cost_row,
    sharing_note,
)
from lcprobe.words import roughly, short

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
LENGTHS_FOLDED = 8
"""Lengths up to which a screen gives the time of each."""


def print_costs(work: Work, config: Config, full: bool = False) -> None:
    """Print the costs of variants: on a screen what decides, or everything. work: by variant, what it reads; variants
    that differ only in the seed of their model are one row."""
    probe = config.probe
    half = probe.precision == "bf16" or probe.weights == "bf16"
    device = device_of(config.study.plan_for, half)
    models = _rows_of(work, half)
    rows = [probe_cost_row(model, prompts, probe, device) for model, prompts in models]
    too_long = [note for model, prompts in models if (note := sharing_note(model, prompts, probe, device))]
    lengths = sorted({one.length for _, prompts in models for one in prompts})
    at = {
        (model.name, length): probe_cost_row(model, own, probe, device)
        for model, prompts in models
        for length in lengths
        if len(lengths) > 1 and (own := [one for one in prompts if one.length == length])
    }
    title = f"estimated ({UTILISATION:.0%} of the peak, {'bfloat16' if half else 'float32'})"
    if not full:
        print_rows(_short_rows(rows, device), f"hours and memory, {title}")
        if 1 < len(lengths) <= LENGTHS_FOLDED:
            print_rows(_by_length([model.name for model, _ in models], lengths, at, device), "time by length")
        say(*too_long, *_notes(work), "everything: --plan --full", indent=2)
        return
    total: dict[str, Value] = {"model": "all"}
    for name in ("PFLOPs", f"hours, {device.name}", *(["GPU hours"] if device.gpu else [])):
        total[name] = float(f"{sum(_number(row[name]) for row in rows):.3g}")
    print_rows(
        [*rows, *([dict.fromkeys(rows[0], "") | total] if len(rows) > 1 else [])], f"hours and memory, {title}"
    )
    if at:
        print_rows(list(at.values()), "by length")
    note = "read: shared prefixes once; hours: of one process; "
    note += (
        "GPUs: that hold one prompt, layers split, one at work" if device.gpu else "fits: into this machine's memory"
    )
    if probe.context_parallel > 1:
        note = "read: shared prefixes once; hours, GPUs: of the "
        note += f"{probe.context_parallel} processes that share contexts; GB: of each"
    say(note, ONE_LENGTH, *too_long, *_notes(work), indent=2)


def _short_rows(rows: Sequence[Mapping[str, Value]], device: Device) -> list[dict[str, Value]]:
    """What decides of each model: size, tokens that are read, time, memory and what it fits into; and of all the
    time."""
    hours, unknown = f"hours, {device.name}", "unknown"
    table: list[dict[str, Value]] = []
    for row in rows:
        told: dict[str, Value] = {"model": row["model"]}
        told["parameters"] = short(_number(row["parameters"])) if row["parameters"] != "" else unknown
        told["tokens read"] = short(_number(row["read"]))
        told[f"time, {device.name}"] = _time(row[hours])
        if device.gpu:
            told |= {"GPUs": str(row["GPUs"]) or unknown, "GB each": row["GB each"]}
            told["GPU hours"] = row["GPU hours"]
        else:
            told |= {"memory": unknown if row["GB"] == "" else f"{row['GB']} GB", "fits": row["fits"]}
        table.append(told)
    if len(rows) > 1:
        time = _time(sum(_number(row[hours]) for row in rows))
        every: dict[str, Value] = {"model": "all", f"time, {device.name}": time}
        if device.gpu:
            every["GPU hours"] = float(f"{sum(_number(row['GPU hours']) for row in rows):.3g}")
        table.append({**dict.fromkeys(table[0], ""), **every})
    return table


def _by_length(
    names: Sequence[str],
    lengths: Sequence[int],
    at: Mapping[tuple[str, int], Mapping[str, Value]],
    device: Device,
) -> list[dict[str, Value]]:
    """One row per model: its time at each length, empty where it reads none."""
    hours = f"hours, {device.name}"
    table: list[dict[str, Value]] = []
    for name in names:
        times = {f"{n:,}": _time(at[name, n][hours]) if (name, n) in at else "" for n in lengths}
        table.append({"model": name, **times})
    return table


def _time(hours: Value) -> str:
    return "" if hours == "" else roughly(3600 * _number(hours))


def _rows_of(work: Work, half: bool) -> list[tuple[ProbedModel, Sequence[Prompts]]]:
    """Models with what they read; seeds of one group together."""
    found: dict[object, tuple[ProbedModel, Sequence[Prompts]]] = {}
    groups = [names.group for names in group_names([variant.target for variant, _ in work.values()])]
    for (variant, prompts), group in zip(work.values(), groups, strict=True):
        target, source = variant.target, variant.target.source
        sizes = None if source.engine != "native" else target.config.model
        name = group + variant.name.removeprefix(target.name)
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
