"""Limits of a study, reported before any finding: data, parameters, tuning, seeds, gaps, tasks not acquired."""

from collections import Counter
from collections.abc import Iterator, Sequence

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.wording import Sentence, listed
from lcprobe.analysis.stats.intervals import SAMPLES_FOR_NOMINAL_COVERAGE

READ_FIRST = "Read this first"
MATCHED_WITHIN = 0.02
"""Largest relative difference in parameters between models that are called matched."""


def flags(results: Results) -> Iterator[Sentence]:
    """Sentences about the study as a whole; those that limit it are warnings."""
    yield from _matching(results)
    yield _tuning(results.study.runs)
    yield from _differences(results.study.runs)
    yield from _seeds(results.study.runs)
    yield from _gaps(results)
    yield from _few_samples(results)
    yield from _not_acquired(results)


def _matching(results: Results) -> Iterator[Sentence]:
    study, runs = results.study, results.study.runs
    digests: dict[int, dict[str, list[str]]] = {}  # each training seed has its own order
    for run in runs:
        digests.setdefault(run.seed, {}).setdefault(run.data_digest, []).append(run.name)
    first = ", ".join(digest[:12] for seed in sorted(digests) for digest in digests[seed])
    if len(runs) < 2:
        yield Sentence(READ_FIRST, f"One model only ({runs[0].name}; data digest {first}): nothing is compared.")
    elif all(len(of_seed) == 1 for of_seed in digests.values()):
        within = "" if len(digests) == 1 else " within each seed"
        text = (
            f"All {len(runs)} models were trained on the same tokens in the same order{within} (data digest {first})."
        )
        yield Sentence(READ_FIRST, text)
    else:
        groups = [(digest, names) for seed in digests.values() if len(seed) > 1 for digest, names in seed.items()]
        sides = "; ".join(f"{digest[:12]}: {', '.join(names)}" for digest, names in groups)
        yield Sentence(
            READ_FIRST, f"Data are NOT matched: the digests of the training batches differ ({sides}).", True
        )
    if len(runs) > 1:
        counts = [run.params for run in runs]
        span = f"({min(counts):,} to {max(counts):,})"
        text = f"Parameters are matched within {study.mismatch:.1%} {span}."
        if study.mismatch > MATCHED_WITHIN:
            text = f"Parameters are NOT matched: they differ by {study.mismatch:.1%} {span}."
        yield Sentence(READ_FIRST, text, study.mismatch > MATCHED_WITHIN)


def _differences(runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    if len({run.tokens for run in runs}) > 1:
        yield Sentence(READ_FIRST, f"Training tokens differ: {listed(f'{r.name} {r.tokens:,}' for r in runs)}.", True)
    if len({run.context_length for run in runs}) > 1:
        yield Sentence(
            READ_FIRST, f"Training lengths differ: {listed(f'{r.name} {r.context_length:,}' for r in runs)}.", True
        )
    if skipped := [f"{r.name} {r.skipped_steps}" for r in runs if r.skipped_steps]:
        yield Sentence(
            READ_FIRST,
            f"Optimiser steps were skipped because of values that were not finite: {listed(skipped)}.",
            True,
        )


def _seeds(runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    groups = {run.group: sum(r.group == run.group for r in runs) for run in runs}
    if len(groups) > 1 and min(groups.values()) < 2:
        counted = listed(f"{group} {n}" for group, n in groups.items())
        text = f"Training seeds per model: {counted}. With one seed, differences between models may be seed noise."
        yield Sentence(READ_FIRST, text, True)
    elif len(groups) > 1:
        counted = listed(f"{group} {n}" for group, n in groups.items())
        text = f"Training seeds per model: {counted}."
        yield Sentence(
            READ_FIRST, f"{text} A difference between models counts only if it is also resolved over seeds."
        )


def _tuning(runs: Sequence[RunFacts]) -> Sentence:
    untuned = [run for run in runs if run.tuned != "swept"]
    rates = listed(f"{run.name} {run.lr:g}" for run in runs if run.lr is not None)
    if not untuned:
        return Sentence(READ_FIRST, f"Learning rates were swept for every model ({rates}).")
    chosen = listed(f"{run.name}: {run.tuned}" for run in untuned)
    how = "This comparison is untuned" if len(untuned) == len(runs) else "This comparison is partly untuned"
    return Sentence(
        READ_FIRST,
        f"{how}: {chosen}. A model may lose because of its learning rate ({rates or 'unknown'}) alone.",
        True,
    )


def _gaps(results: Results) -> Iterator[Sentence]:
    missing = results.incomplete
    planned = sum(cell.planned is not None for cell in results.cells)
    if missing:
        places = [
            f"{c.where.model} {c.where.task} {c.where.format} at {c.length}, depth {c.depth:g}" for c in missing[:3]
        ]
        rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        text = f"{len(missing)} of {planned} planned cells are incomplete ({'; '.join(places)}{rest})"
        yield Sentence(READ_FIRST, f"{text}: no mean is taken over them.", True)
    data = results.data
    if data.n_failed:
        text = f"{data.n_failed} of {len(data.records)} queries failed (out of memory): they do not count as trials"
        yield Sentence(READ_FIRST, f"{text}, and their cells are incomplete.", True)
    for note in data.notes:
        yield Sentence(READ_FIRST, f"{note}.", True)


def _few_samples(results: Results) -> Iterator[Sentence]:
    """A warning where the coverage of 95 % intervals may differ from 95 %."""
    planned = [cell.planned for cell in results.cells if cell.planned is not None]
    few = [n for n in planned if n < SAMPLES_FOR_NOMINAL_COVERAGE]
    if few:
        counts = f"{min(few)}" if min(few) == max(few) else f"{min(few)} to {max(few)}"
        limit = SAMPLES_FOR_NOMINAL_COVERAGE
        text = (
            f"Few samples: {len(few)} of {len(planned)} planned cells have {counts}. Below {limit} the interval of a "
        )
        text += "single cell covers the true proportion in 91 to 99 % of cases, not always in 93 to 97 %."
        yield Sentence(READ_FIRST, text, True)


def _not_acquired(results: Results) -> Iterator[Sentence]:
    """One sentence per model and task, which lists the formats, and one for what was not tested."""
    failed: dict[tuple[str, str], list[str]] = {}
    for gate in results.gates:
        if gate.acquired == "not acquired":
            zero = f"{gate.where.format}: {gate.controls['zero_distance']}, needed > {gate.acquired_above:.2f}"
            failed.setdefault(gate.where[:2], []).append(zero)
    tested = Counter(gate.where[:2] for gate in results.gates if gate.acquired != "not tested")
    reason = "exact match with the needle directly before the question is too low"
    for (model, task), formats in failed.items():
        several = f" in {len(formats)} of {tested[model, task]} formats" if tested[model, task] > 1 else ""
        text = f"{model}, {task}: task not acquired{several}, as {reason}"
        yield Sentence(
            READ_FIRST,
            f"{text} ({'; '.join(formats)}). Results at longer distances are not interpretable there.",
            True,
        )
    untested = {f"{g.where.task} {g.where.format}" for g in results.gates if g.acquired == "not tested"}
    if untested:
        text = f"No zero-distance control at the base length for {listed(sorted(untested))}"
        yield Sentence(READ_FIRST, f"{text}: failures there may be due to the task itself.", True)
