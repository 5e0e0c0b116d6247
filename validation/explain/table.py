"""The table of planted causes: what `lcprobe explain` says about numbers of which the cause is known, and about
numbers that were measured as ours are.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from lcprobe.analysis.stats.intervals import wilson
from lcprobe.errors import unknown_name
from lcprobe.probing.explain.config import ExplainConfig
from lcprobe.probing.explain.measure import Bench
from lcprobe.probing.explain.outputs import OutputFacts, facts_of_outputs
from lcprobe.probing.explain.prompts import Subject
from lcprobe.schema import build
from lcprobe.studies.evaluation.explaining.explain import Explanation, explain
from lcprobe.tasks.episode import Formats
from lcprobe.tasks.presets import choose_task
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import load_tokenizer
from validation.explain.reader import PlantedReader
from validation.explain.theirs import LM_EVAL, OUTSIDE, PLANTS, UNCHANGED, Plant, Theirs

TITLE = "lcprobe explain: planted causes, and nothing planted"
OPTIONS = ("n", "our_n", "seeds", "null_n", "given")
GROUP = ("given",)
ONE, SEVERAL, OUTPUTS, NOTHING = (
    "one number",
    "numbers at three lengths",
    "one number and their outputs",
    "a number of ours",
)
GIVEN = (ONE, SEVERAL, OUTPUTS, NOTHING)
TASK = "ruler/niah_single_1"
LENGTHS, HARNESS_LENGTHS = (512, 256, 640), (1024,)
"""The first alone for one number, all for several; lm-eval makes no samples below 1,024 tokens."""


@cache
def subject() -> Subject:
    """RULER's first task, under a tokenizer of 1,024 entries."""
    materials, choice = Materials(load_tokenizer("shipped-1024")), choose_task(TASK, "task")
    return Subject(TASK, choice.create(materials), Formats("noise", "words", "numbers"), materials)


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """A row for each planted cause with one number, with several, and with one and their outputs; and one for nothing
    planted. options: n (1500) samples of theirs, our_n (800) of ours, seeds (40) of nothing planted, null_n (400)
    samples of each; given: what is given, all by default."""
    n, our_n, seeds, null_n = (
        int(options.get(name, default)) for name, default in zip(OPTIONS, (1500, 800, 40, 400), strict=False)
    )
    given = options["given"].split(",") if "given" in options else list(GIVEN)
    for name in given:
        if name not in GIVEN:
            raise unknown_name("given", name, GIVEN)
    reader = PlantedReader(subject().tokenizer)
    theirs, bench = Theirs(reader, subject()), Bench(reader, subject(), our_n)
    rows = []
    for number, plant in enumerate(PLANTS):
        lengths = HARNESS_LENGTHS if plant is LM_EVAL else LENGTHS
        found, written = [], []
        for length in lengths if SEVERAL in given else lengths[:1]:
            theirs.written.clear()
            found.append(round(plant.measure(theirs, length, n, (number + 1) * 10 * n), 4))
            written.append(list(theirs.written))
        own_n = 500 if plant is LM_EVAL else n
        if ONE in given:
            rows.append(_row(plant, ONE, lengths[:1], found[:1], own_n, bench))
        if SEVERAL in given:
            rows.append(_row(plant, SEVERAL, lengths, found, own_n, bench))
        if OUTPUTS in given:
            facts = facts_of_outputs(written[0], subject().tokenizer, ())
            rows.append(_row(plant, OUTPUTS, lengths[:1], found[:1], own_n, bench, facts))
    if NOTHING in given:
        rows.append(_nothing(theirs, bench, seeds, null_n))
    return rows


def explained(
    bench: Bench, lengths: Sequence[int], numbers: Sequence[float], n: int, facts: OutputFacts | None = None
) -> Explanation:
    """What `explain` finds, without any description of theirs."""
    given = {"task": TASK, "length": list(lengths), "theirs": list(numbers), "n": n, "our_n": bench.n}
    return explain(bench, build(ExplainConfig, given, ""), facts=facts)


def _row(
    plant: Plant,
    given: str,
    lengths: Sequence[int],
    numbers: list[float],
    n: int,
    bench: Bench,
    facts: OutputFacts | None = None,
) -> dict[str, Any]:
    found = explained(bench, lengths, numbers, n, facts)
    named = found.decision.named
    first = named[0].name if named else found.decision.verdict
    unnamed = found.decision.verdict in ("coincidence", "none")  # what is right where no change is the cause
    return {
        "given": given,
        "planted": plant.what,
        "cause": plant.cause,
        "lengths": ", ".join(map(str, lengths)),
        "ours": ", ".join(f"{m.scores.mean():.3f}" for m in found.ours),
        "theirs": ", ".join(f"{value:.3f}" for value in numbers),
        "verdict": found.decision.verdict,
        "first": first,
        "share": round(named[0].share, 3) if named else None,
        "something else": round(found.decision.rest, 3),
        "tried": found.decision.tried,
        "others": "; ".join(f"{a.name} {a.share:.2f}" for a in named[1:4]) or None,
        "cause named first": _yes(first.partition(":")[0] == plant.cause or (not plant.named and unnamed)),
        "condition named first": _yes(first == plant.named or (not plant.named and unnamed)),
        "among those named": _yes(plant.named in [a.name for a in named] or (not plant.named and unnamed)),
    }


def _yes(right: bool) -> str:
    return "yes" if right else "no"


def _nothing(theirs: Theirs, bench: Bench, seeds: int, n: int) -> dict[str, Any]:
    """How often something is named where they measure as we do."""
    length, invented, noise, numbers = LENGTHS[0], 0, 0, []
    for seed in range(seeds):
        value = round(UNCHANGED(theirs, length, n, 5_000_000 + seed * n), 4)
        found = explained(bench, [length], [value], n)
        invented += bool(found.decision.named)
        noise += found.decision.verdict == "noise"
        numbers.append(value)
    low, high = wilson(invented, seeds)
    return {
        "given": NOTHING,
        "planted": "nothing",
        "cause": "none",
        "lengths": str(length),
        "ours": f"{found.ours[0].scores.mean():.3f}",
        "theirs": f"{min(numbers):.3f} .. {max(numbers):.3f}",
        "verdict": f"noise in {noise} of {seeds}",
        "first": f"invented in {invented} of {seeds} ({float(low):.2f}-{float(high):.2f})",
        "share": None,
        "something else": None,
        "tried": None,
        "others": None,
        "cause named first": "yes" if not invented else "no",
        "condition named first": "yes" if not invented else "no",
        "among those named": "yes" if not invented else "no",
    }


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Notes for the reader of the rows."""
    kinds = (ONE, SEVERAL, OUTPUTS)
    groups = [(name, [r for r in rows if r["given"] == name and r["cause"] != OUTSIDE]) for name in kinds]
    outside = [(name, [r for r in rows if r["given"] == name and r["cause"] == OUTSIDE]) for name in kinds]
    counts = [
        f"given {name}: {sum(row['cause named first'] == 'yes' for row in group)} of {len(group)} causes are named "
        f"first, {sum(row['condition named first'] == 'yes' for row in group)} as the very condition, "
        f"{sum(row['verdict'] == 'one' for row in group)} alone, "
        f"{sum(row['verdict'] == 'coincidence' for row in group)} as what coincidence may be; "
        f"{sum(row['among those named'] == 'yes' for row in group)} are among those named"
        for name, group in groups
        if group
    ]
    verdicts = [
        f"given {name}, another checkpoint, which no change accounts for: {', '.join(r['verdict'] for r in group)}"
        for name, group in outside
        if group
    ]
    return [
        *counts,
        *verdicts,
        "The model is a reader of known habits (validation/explain/reader.py); their numbers are measured by other "
        "code than ours, on samples that are none of ours, and explain is told nothing about how. lm-eval makes no "
        "samples below 1,024 tokens: one number whatever is given.",
    ]
