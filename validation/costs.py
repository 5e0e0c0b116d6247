"""What the study of 2.7 B parameters costs: `--plan` at several training lengths, on several numbers of H100s.

    python -m validation costs page=docs/explanation/costs.md

Each row is a command line, `settings` on top of CONFIGS, that fits all three models: with the fewest forward passes a
step (train.accumulate) among those without recomputation, else among those with it. Where nothing fits, it is the
one that takes least. Nothing is measured: memory and time are those that `--plan` prints.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lcprobe.config import load
from lcprobe.studies.planning.costs import matching_table
from lcprobe.studies.planning.memory.estimate import GPU_MEMORY, divisors, memory_of
from lcprobe.studies.planning.plan import StudyPlan, make_plan

TITLE = "2.7 B parameters: memory of a device and days of training, as --plan says"
OPTIONS = ("page",)
CONFIGS = ("configs/study/matched-2.7b.yaml", "configs/data/fineweb-edu.yaml")
LENGTHS, DEVICES = (2048, 4096, 8192, 32_768), (1, 8, 64)
LONG = 32_768
"""From here on a row's activations may not fit one device: context parallelism is planned, too."""
MODELS = {"mamba2": "Mamba2", "hybrid": "hybrid", "transformerpp": "Transformer++"}
BEGIN, END = "<!-- python -m validation costs -->\n", "<!-- end -->\n"
"""Around the table of a page."""


@dataclass(frozen=True)
class Division:
    """How devices divide a run. settings: of training."""

    name: str
    settings: Mapping[str, Any]


ALONE = (Division("", {}),)
SHORT_ROWS = (Division("ddp", {"strategy": "ddp"}), Division("fsdp2", {"strategy": "fsdp2"}))
LONG_ROWS = (
    *SHORT_ROWS,
    Division("fsdp2, context_parallel 4", {"strategy": "fsdp2", "context_parallel": 4, "compile": False}),
)


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per training length, number of devices and division. options: page, a file whose table is replaced."""
    rows = [row for length in LENGTHS for row in _rows(length)]
    if "page" in options:
        page = Path(options["page"])
        page.write_text(with_table(page.read_text(encoding="utf-8"), rows), encoding="utf-8")
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Rows that do not fit."""
    return [f"does not fit: {row['settings']}" for row in rows if not row["fits"]]


def planned(settings: str) -> list[dict[str, Any]]:
    """The table of `--plan` with these settings on top of CONFIGS, a row for each model."""
    return matching_table(make_plan(load([*CONFIGS], settings.split()), fetch=False))


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The rows as lines of Markdown."""
    names = ", ".join(MODELS.values())
    head = ["length", "GPUs", "strategy", "`accumulate`", "`recompute`"]
    head += [f"GB a GPU: {names}", f"days: {names}", "days, all three"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        gigabytes = ", ".join(f"{row[f'{name} GB']:.0f}" for name in MODELS)
        days = ", ".join(_days(row[f"{name} days"]) for name in MODELS) if row["fits"] else "does not fit"
        cells = [f"{row['context length'] // 1024} K", str(row["GPUs"]), row["strategy"]]
        cells += [str(row["accumulate"]), "yes" if row["recompute"] else "", gigabytes, days]
        yield "| " + " | ".join([*cells, _days(row["trio days"]) if row["fits"] else ""]) + " |"


def with_table(text: str, rows: list[dict[str, Any]]) -> str:
    """A page's text with the table of these rows between its marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + "\n".join(table(rows)) + "\n\n" + END + after


def _rows(length: int) -> Iterator[dict[str, Any]]:
    base = [f"train.context_length={length}", "train.devices=1", "train.accumulate=1"]
    plan = make_plan(load([*CONFIGS], base), fetch=False)
    for devices in DEVICES:
        divisions = ALONE if devices == 1 else LONG_ROWS if length >= LONG else SHORT_ROWS
        for division in divisions:
            groups = devices // division.settings.get("context_parallel", 1)
            if plan.config.train.rows % groups == 0:
                yield _row(plan, devices, division, plan.config.train.rows // groups)


def _row(plan: StudyPlan, devices: int, division: Division, rows: int) -> dict[str, Any]:
    """The first settings that fit all models, or the last ones. rows: of a step, on each group of devices."""
    given = {"context_length": plan.config.train.context_length, "devices": devices, **division.settings}
    ways = [{**given, "accumulate": a, "recompute": again} for again in (False, True) for a in divisors(rows)]
    fits = lambda way: max(memory_of(run, way).total for run in plan.runs) <= GPU_MEMORY["h100"]  # noqa: E731
    way = next(filter(fits, ways), ways[-1])
    settings = " ".join(f"train.{name}={str(value).lower()}" for name, value in way.items())
    runs = [replace(run, config=replace(run.config, train=replace(run.config.train, **way))) for run in plan.runs]
    of_models = {row["model"]: row for row in matching_table(replace(plan, runs=runs))}
    days = {name: round(float(of_models[name]["hours, h100 (est.)"] or 0) / 24, 2) for name in MODELS}
    return {
        "context length": way["context_length"],
        "GPUs": devices,
        "strategy": division.name,
        "accumulate": way["accumulate"],
        "recompute": way["recompute"],
        "fits": fits(way),
        **{f"{name} GB": of_models[name]["memory GB (est.)"] for name in MODELS},
        **{f"{name} days": days[name] for name in MODELS},
        "trio days": round(sum(days.values()), 2),
        "settings": settings,
    }


def _days(days: float) -> str:
    return f"{days:.0f}" if days >= 10 else f"{days:.1f}" if days >= 1 else f"{days:.2f}"
