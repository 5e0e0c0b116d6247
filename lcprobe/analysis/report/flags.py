"""Limits of a study, reported before any finding: data, parameters, tuning, seeds, gaps, tasks not acquired."""

from collections.abc import Iterator, Mapping, Sequence

from lcprobe.analysis.findings.cells import Slice
from lcprobe.analysis.findings.gates import Gate, GateClaim
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.slice_tests import proportions
from lcprobe.analysis.findings.tokenizers import tokenizer_texts
from lcprobe.analysis.inputs import RunFacts, StudyFacts
from lcprobe.analysis.report.continued import continued
from lcprobe.analysis.report.training_data import training_data_flags
from lcprobe.analysis.report.wording import READ_FIRST, Sentence, found_text, listed, stratum_text
from lcprobe.analysis.stats.differences import mean_bounds_at
from lcprobe.analysis.stats.intervals import SAMPLES_FOR_NOMINAL_COVERAGE
from lcprobe.analysis.stats.multiplicity import ALPHA
from lcprobe.models.extend.config import AS_TRAINED
from lcprobe.tasks.episode import Formats
from lcprobe.words import plural

MAX_DIGESTS = 6
"""Data digests that a sentence shows, at most."""
EQUAL_WITHIN = 0.01
"""Largest relative difference in a quantity of training that counts as equal: budgets are whole steps."""
MANY = 6
"""Runs above which a value that all have in common is printed once."""
PUBLISHED = "published"
"""How the learning rate of a model was chosen that was not trained here."""
LENGTHS_DIFFER = "Training lengths differ"
NOT_ACQUIRED, NOT_SHOWN = "not acquired", "not shown to be acquired"
MATCHED_WITHIN = 0.02
"""Largest relative difference in parameters between models that are called matched."""


def flags(results: Results) -> Iterator[Sentence]:
    """Sentences about the study as a whole; those that limit it are warnings."""
    yield from _matching(results)
    yield from _tokenizers(results)
    yield from _tuning(results.study.runs)
    yield from _published(results.study.runs)
    yield from held_equal(results.study)
    yield from _differences(results.study.runs)
    yield from training_data_flags(results)
    yield from continued(results.study.runs)
    yield from _seeds(results.study.runs)
    for text in results.study.unread:
        yield Sentence(READ_FIRST, f"{text}.", True, kind="Positions end before the longest lengths")
    yield from _gaps(results)
    yield from _few_samples(results)
    yield from _error_rate(results)
    yield from _not_acquired(results)


def _matching(results: Results) -> Iterator[Sentence]:
    study, runs = results.study, results.study.runs
    trained = [run for run in runs if run.tuned != PUBLISHED]
    models = dict.fromkeys(run.group for run in runs)
    if len(models) < 2:
        seeds = list(dict.fromkeys(run.seed for run in runs))
        who = runs[0].name if len(seeds) == 1 else f"{runs[0].group}, {len(seeds)} training seeds"
        digests = listed(dict.fromkeys(run.data_digest[:12] for run in runs if run.data_digest))
        of_data = f"; data digest {digests}" if digests else ""
        yield Sentence(READ_FIRST, f"One model only ({who}{of_data}): no models are compared.")
    elif len(trained) > 1:
        yield from _same_data(trained)
    if len(models) > 1:
        counts = study.amounts or [run.params for run in runs]
        span, what = f"({min(counts):,.0f} to {max(counts):,.0f})", f"{study.matched[0].upper()}{study.matched[1:]}"
        text = f"{what} are matched within {study.mismatch:.1%} {span}."
        if study.mismatch > MATCHED_WITHIN:
            text = f"{what} are NOT matched: they differ by {study.mismatch:.1%} {span}."
        kind = f"{what} not matched ({study.mismatch:.1%} apart)"
        yield Sentence(READ_FIRST, text, study.mismatch > MATCHED_WITHIN, kind=kind)


def _same_data(runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    """Whether models that were trained here were trained on the same batches."""
    # each training seed has its own order, and rows of different lengths are different batches
    digests: dict[tuple[int, int], dict[str, list[str]]] = {}
    for run in runs:
        digests.setdefault((_training_length(run), run.seed), {}).setdefault(run.data_digest, []).append(run.name)
    several = [len({place[i] for place in digests}) > 1 for i in (0, 1)]
    words = " and ".join(name for name, many in zip(("training length", "seed"), several, strict=True) if many)
    within = f" within each {words}" if words else ""
    shown = [digest[:12] for place in sorted(digests) for digest in digests[place]]
    first = listed(
        [*shown[:MAX_DIGESTS], *([f"{len(shown) - MAX_DIGESTS} more"] if len(shown) > MAX_DIGESTS else [])]
    )
    if several[0] and len(digests) == len(runs):
        text = f"No two models have the same {words}: whether they were trained on the same data cannot be compared."
        yield Sentence(READ_FIRST, text, True, kind="Training data not comparable")
    elif all(len(group) == 1 for group in digests.values()):
        models, trained = len({run.group for run in runs}), len({run.base or run.name for run in runs})
        who = "Both models" if models == 2 else f"All {models} models"
        who += f" ({trained} runs)" if trained > models else ""
        text = f"{who} were trained on the same tokens in the same order{within} (data digest {first})."
        yield Sentence(READ_FIRST, text)
    else:
        groups = [(digest, names) for group in digests.values() if len(group) > 1 for digest, names in group.items()]
        sides = "; ".join(f"{digest[:12]}: {', '.join(names)}" for digest, names in groups)
        text = f"Data are NOT matched: the digests of the training batches differ{within} ({sides})."
        yield Sentence(READ_FIRST, text, True, kind="Training data not matched")


def _tokenizers(results: Results) -> Iterator[Sentence]:
    """Which tokenizers there are, what their lengths have in common, and what follows for comparisons."""
    for text, is_warning in tokenizer_texts(results.study, results.data.tokenizers):
        yield Sentence(READ_FIRST, text, is_warning, kind="Several tokenizers")


def held_equal(study: StudyFacts) -> Iterator[Sentence]:
    """What runs of different training lengths have in common, and what therefore differs: a limit of any comparison
    between them."""
    trained = [run for run in study.runs if run.tuned != PUBLISHED]
    lengths = sorted({_training_length(run) for run in study.runs})
    if len(lengths) < 2:
        return
    if len({_training_length(run) for run in trained}) < 2:
        text = f"Training lengths differ ({listed(f'{n:,}' for n in lengths)} tokens), and of models that were not "
        yield Sentence(READ_FIRST, f"{text}trained here it is not known what else does.", True, kind=LENGTHS_DIFFER)
        return
    ratios = _ratios(trained)
    wanted = {"flops": "FLOPs", "": ""}.get(study.held_equal, study.held_equal)
    text = f"Training lengths differ ({listed(f'{n:,}' for n in lengths)} tokens). "
    if not wanted:
        text += "The runs come from studies with different rules on what is equal at all training lengths."
    elif broken := {name: r for name, r in ratios.get(wanted, {}).items() if abs(r - 1) > EQUAL_WITHIN}:
        text += f"Training {wanted} are NOT equal: {_times(broken)}, longest against shortest length."
    else:
        text += f"Equal at all of them: training {wanted}, with the batch in {study.batch_in or 'tokens or in rows'}."
    differ = {
        q: by for q, by in ratios.items() if q != wanted and any(abs(r - 1) > EQUAL_WITHIN for r in by.values())
    }
    if differ:
        sides = "; ".join(f"{quantity} {_times(by)}" for quantity, by in differ.items())
        text += f" What therefore differs, longest against shortest length: {sides}."
    yield Sentence(READ_FIRST, text, True, kind=LENGTHS_DIFFER)


def _training_length(run: RunFacts) -> int:
    """Training length in the run's own tokens."""
    return run.own_context_length or run.context_length


def _ratios(runs: Sequence[RunFacts]) -> dict[str, dict[str, float]]:
    """Quantities of training at an architecture's longest training length, relative to its shortest: by quantity and
    architecture. Those that are not known of both are left out."""
    ratios: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(run.architecture or run.group for run in runs):
        own = sorted((r for r in runs if (r.architecture or r.group) == name), key=_training_length)
        short, long = _amounts(own[0]), _amounts(own[-1])
        if _training_length(own[0]) < _training_length(own[-1]):
            for quantity in short:
                if short[quantity] > 0 and long[quantity] > 0:
                    ratios.setdefault(quantity, {})[name] = long[quantity] / short[quantity]
    return ratios


def _amounts(run: RunFacts) -> dict[str, float]:
    batch = run.batch_tokens
    steps, rows = (run.tokens / batch if batch else 0.0), batch / _training_length(run)
    return {"tokens": run.tokens, "steps": steps, "FLOPs": run.flops, "rows per step": rows}


def _times(ratios: Mapping[str, float]) -> str:
    """`x0.25`, or `x1.2 (a), x1 (b)` where architectures differ."""
    texts = {name: f"x{ratio:.3g}" for name, ratio in ratios.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return listed(f"{text} ({name})" for name, text in texts.items())


def _differences(runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    tokens: dict[int, set[int]] = {}
    for run in runs:
        tokens.setdefault(_training_length(run), set()).add(run.tokens)
    if differ := [r for r in runs if len(tokens[_training_length(r)]) > 1 and (r.tokens or r.tuned != PUBLISHED)]:
        text = f"Training tokens differ: {listed(f'{r.name} {r.tokens:,}' for r in differ)}."
        yield Sentence(READ_FIRST, text, True, kind="Training tokens differ", about=_groups(differ), unit="model")
    if skipped := [r for r in runs if r.skipped_steps]:
        text = "Optimiser steps were left out, because of values that were not finite or of a spike of the loss: "
        text += f"{listed(f'{r.name} {r.skipped_steps}' for r in skipped)}."
        yield Sentence(READ_FIRST, text, True, kind="Optimiser steps skipped", about=_groups(skipped), unit="model")


def _seeds(runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    by_seed: dict[tuple[str, int], list[str]] = {}
    repeated = False
    for run in runs:
        if run.extension == AS_TRAINED and run.tuned != PUBLISHED:
            by_seed.setdefault((run.group, run.seed), []).append(run.name)
    for (group, seed), names in by_seed.items():
        if len(names) > 1:
            repeated = True
            text = f"{group}: seed {seed} is there {len(names)} times ({listed(names)}). That is one training seed: "
            text += f"models are compared by {names[0]} alone."
            yield Sentence(
                READ_FIRST, text, True, kind="Training seeds that count once", about=(f"{group} seed {seed}",)
            )
    groups = {run.group: len({r.seed for r in runs if r.group == run.group}) for run in runs}
    counted = listed(f"{group} {n}" for group, n in groups.items())
    if (len(groups) > 1 or repeated) and min(groups.values()) < 2:
        text = (
            f"Training seeds per model: {counted}. With one seed every statement is about these runs, and none about "
        )
        text += "an architecture: differences between models may be seed noise."
        few = tuple(group for group, n in groups.items() if n < 2)
        yield Sentence(READ_FIRST, text, True, kind="One training seed", about=few, unit="model")
    elif len(groups) > 1:
        text = f"Training seeds per model: {counted}."
        yield Sentence(
            READ_FIRST, f"{text} A difference between models counts only if it is also resolved over seeds."
        )


def _error_rate(results: Results) -> Iterator[Sentence]:
    """The error rate of all findings together."""
    tested = [claim for claim in results.claims if claim.p is not None]
    if tested:
        text = found_text(sum(claim.resolved for claim in tested), len(tested))
        text = f"{text[0].upper()}{text[1:]}, at one error rate for all of them: "
        text += f"at most {ALPHA:.0%} of reports hold any false one "
        text += "(python -m validation null_reports)."
        yield Sentence(READ_FIRST, text)


def _published(runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    """What cannot be known of models that were not trained here."""
    names = [run.name for run in runs if run.tuned == PUBLISHED]
    if names:
        text = f"Not trained here: {listed(names)}. Their data, tokens, learning rates and seeds are those of their "
        text += "authors: a difference to one of them may come from any of these, and not from the architecture."
        yield Sentence(READ_FIRST, text, True, kind="Not trained here", about=tuple(names), unit="model")


def _tuning(runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    runs = [run for run in runs if run.tuned != PUBLISHED]
    if not runs:
        return
    untuned = [run for run in runs if run.tuned != "swept"]
    rates = _each(_of_models(runs, {run.name: f"{run.lr:g}" for run in runs if run.lr is not None}), "{} {}")
    if not untuned:
        yield Sentence(READ_FIRST, f"Learning rates were swept for every model ({rates}).")
        return
    chosen = _each(_of_models(untuned, {run.name: run.tuned for run in untuned}), "{}: {}")
    how = "This comparison is untuned" if len(untuned) == len(runs) else "This comparison is partly untuned"
    text = f"{how}: {chosen}. A model may lose because of its learning rate ({rates or 'unknown'}) alone."
    if len(_groups(runs)) == 1:
        text = (
            f"The learning rate is untuned: {chosen}. The model may do better at another one ({rates or 'unknown'})."
        )
    kind = "Learning rate not tuned"
    yield Sentence(READ_FIRST, text, True, kind=kind, about=_groups(untuned), unit="model")


def _groups(runs: Sequence[RunFacts]) -> tuple[str, ...]:
    """Models of some runs, whatever their seeds."""
    return tuple(dict.fromkeys(run.group for run in runs))


def _of_models(runs: Sequence[RunFacts], value_of: Mapping[str, str]) -> dict[str, str]:
    """The values of runs, by the model where all of its runs have one."""
    of_group: dict[str, set[str]] = {}
    for run in runs:
        of_group.setdefault(run.group, set()).add(value_of.get(run.name, ""))
    name_of = {run.name: run.group if len(of_group[run.group]) == 1 else run.name for run in runs}
    return {name_of[name]: value for name, value in value_of.items()}


def _each(value_of: Mapping[str, str], form: str) -> str:
    """The value of each run by name, or the one that many runs have in common."""
    values = set(value_of.values())
    if len(values) == 1 and len(value_of) > MANY:
        return f"{values.pop()} in all {len(value_of)} runs"
    return listed(form.format(name, value) for name, value in value_of.items())


def _gaps(results: Results) -> Iterator[Sentence]:
    missing = results.incomplete
    planned = sum(cell.planned is not None for cell in results.cells)
    if missing:
        places = [
            f"{' '.join(map(str, c.where[:3]))} at {c.length:,}, depth {stratum_text(c.depth, c.strata)}"
            for c in missing[:3]
        ]
        rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        text = f"{len(missing)} of {planned} planned cells {plural('is', len(missing))} incomplete "
        text += f"({'; '.join(places)}{rest})"
        kind = f"Incomplete cells: {len(missing):,} of {planned:,}"
        yield Sentence(READ_FIRST, f"{text}: no mean is taken over them.", True, kind=kind)
    data = results.data
    if data.n_failed:
        text = f"{data.n_failed} of {len(data.records)} queries failed (out of memory, no output): they are no trials"
        kind = f"Failed queries: {data.n_failed:,} of {len(data.records):,}"
        yield Sentence(READ_FIRST, f"{text}, and their cells are incomplete.", True, kind=kind)
    for note in data.notes:
        yield Sentence(READ_FIRST, f"{note}.", True, kind="Left out", about=(note,), unit="note")


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
        yield Sentence(READ_FIRST, text, True, kind=f"Few samples in a cell: {counts}")


def _not_acquired(results: Results) -> Iterator[Sentence]:
    """Per model and task one sentence on formats that are shown not to be acquired, and one on those that are not
    shown to be; and one for what was not tested."""
    groups = {run.name: run.group for run in results.study.runs}
    failed: dict[tuple[str, str, str], list[str]] = {}
    formats: dict[tuple[str, str, str], set[Formats]] = {}
    tested: dict[tuple[str, str], set[Formats]] = {}
    for gate in results.gates:
        model, task, format = gate.where[:3]
        if gate.acquired != "not tested":
            tested.setdefault((groups[model], task), set()).add(format)
        if gate.acquired == "not acquired":
            verdict, zero = _zero_distance(results, gate)
            failed.setdefault((verdict, model, task), []).append(f"{format}: {zero}")
            formats.setdefault((verdict, groups[model], task), set()).add(format)
    for (verdict, model, task), zeros in failed.items():
        n, group = len(tested[groups[model], task]), groups[model]
        reason = "is below what is needed" if verdict == NOT_ACQUIRED else "is not resolved above what is needed"
        text = (
            f"{model}, {task}: task {verdict}{f' in {len(zeros)} of {n} formats' if n > 1 else ''}, as exact match "
        )
        text += f"with the needle directly before the question {reason}, at the report's one error rate "
        text += f"({'; '.join(zeros)}). Results at longer distances are not interpretable there."
        about = f"{group} on {task}" + (f" in {len(formats[verdict, group, task])} of {n} formats" if n > 1 else "")
        yield Sentence(READ_FIRST, text, True, task=task, kind=f"Task {verdict}", about=(about,))
    untested = {f"{g.where.task} {g.where.format}" for g in results.gates if g.acquired == "not tested"}
    if untested:
        text = f"No zero-distance control at the reference length for {listed(sorted(untested))}"
        text = f"{text}: failures there may be due to the task itself."
        yield Sentence(READ_FIRST, text, True, kind="No zero-distance control", about=tuple(sorted(untested)))


def _zero_distance(results: Results, gate: Gate) -> tuple[str, str]:
    """What is shown of a task that is not acquired, and `0.78 (39/50; 0.55–0.92), needed > 0.62`, with the interval
    that decides: that of the share of the report's error rate that the claim had."""
    part = results.data.slice(gate.where._replace(control="zero_distance"), gate.length)
    (claim,) = (c for c in gate.parts if isinstance(c, GateClaim) and c.kind == "task")
    needed = f"needed > {gate.acquired_above:.2f}"
    if not isinstance(part, Slice) or claim.share is None:
        return NOT_SHOWN, f"{gate.controls['zero_distance']}, {needed}"
    low, high = mean_bounds_at(proportions(part, part.index), ALPHA * claim.share)
    k, n = part.estimate.k, part.estimate.n
    verdict = NOT_ACQUIRED if high < gate.acquired_above else NOT_SHOWN
    return verdict, f"{part.value:.2f} ({k}/{n}; {low:.2f}–{high:.2f}), {needed}"
