"""Sentences and tables about training length as a factor: what the slope, the curves and the depths support."""

import math
from collections.abc import Iterator

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.contrasts import ON_THESE_RUNS
from lcprobe.analysis.findings.extrapolation import SHARE_OF_BASE
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.training_length.collapses import Collapse
from lcprobe.analysis.findings.training_length.depth_effects import DepthEffect
from lcprobe.analysis.findings.training_length.effective_lengths import EffectiveLength
from lcprobe.analysis.findings.training_length.length_fits import MARGIN, LengthFit
from lcprobe.analysis.inputs import Value
from lcprobe.analysis.report.wording import Sentence, listed, p_text, panel_subject
from lcprobe.analysis.stats.censored_line import Bounded
from lcprobe.analysis.stats.estimates import Estimate
from lcprobe.words import span

TRAINING_LENGTH = "Training length"
UNRESOLVED = "none of ceiling, fixed reach and no ceiling is resolved"
Rows = list[dict[str, Value]]


def training_length_sentences(results: Results) -> Iterator[Sentence]:
    """Per architecture, task and format: what limits it, whether its curves collapse, and what training at longer
    lengths changed at equal tokens and in its effects of depth.
    """
    curves = {(c.architecture, c.task, c.format): c for c in results.collapses}
    for fit in results.length_fits:
        subject = panel_subject(results.data, PanelKey(fit.architecture, fit.task, fit.format))
        yield Sentence(TRAINING_LENGTH, f"{subject}: {verdict_text(fit)}.", subject=subject)
        collapse = curves[fit.architecture, fit.task, fit.format]
        if fit.verdict != "not tested" and collapse.verdict != "not tested":
            yield Sentence(TRAINING_LENGTH, f"{subject}: {collapse_text(collapse)}.", subject=subject)
        yield from _tests(results, fit, subject)


def verdict_text(fit: LengthFit) -> str:
    """What the effective lengths of an architecture support, with the slope and its interval."""
    if fit.verdict == "not tested":
        return f"effective length against training length was not tested: {fit.note}"
    lengths = [run.context_length for run in fit.runs]
    runs = f"{len(fit.fitted)} runs trained at {span(lengths)} tokens"
    if fit.verdict == "no ceiling":
        text = f"no ceiling up to {fit.longest:,} tokens, the longest tested, for any training length"
        seeds = _on_runs(fit.one_seed)
        return f"{text}{seeds}: {runs} all reach {SHARE_OF_BASE:g} of their base there{_excluded(fit)}"
    resolution = f"tested lengths are up to a factor of {fit.step:g} apart"
    details = f"{runs}{_censored(fit)}; {resolution}{_excluded(fit)}{_p_text(fit)}"
    if fit.slope is None:
        return f"{UNRESOLVED}; no slope can be estimated ({details})"
    if not all(map(math.isfinite, fit.slope)):
        return f"{UNRESOLVED}; so few runs that fall set no bounds to the slope ({details})"
    multiple = ""
    if fit.multiple is not None and all(map(math.isfinite, fit.multiple)):
        multiple = f", {bounds_text(fit.multiple)} x the training length at {fit.centre:.0f}"
    numbers = f"(slope {bounds_text(fit.slope)} of log2 on log2{multiple}; {details})"
    if fit.verdict == "ceiling":
        runs = _on_runs(fit.one_seed)
        return f"the training length is the ceiling: effective length grows in proportion to it{runs} {numbers}"
    if fit.verdict == "fixed reach":
        runs = _on_runs(fit.one_seed)
        return f"a fixed reach: effective length does not grow with the training length{runs} {numbers}"
    if fit.found in ("ceiling", "fixed reach"):
        return f"{UNRESOLVED} at the error rate of the report {numbers}"
    if fit.grows_less:
        return f"{UNRESOLVED}; effective length grows with the training length, less than in proportion {numbers}"
    if fit.slope.low > 0:
        grows = "effective length grows with the training length, whether in proportion is open"
        return f"{UNRESOLVED}; {grows} {numbers}"
    return f"{UNRESOLVED}; the interval of the slope is not within {MARGIN:g} of 1 or of 0 {numbers}"


def collapse_text(collapse: Collapse) -> str:
    """Whether the curves of an architecture coincide."""
    numbers = f"root mean square difference {collapse.over_multiples} at equal multiples of the training length, "
    numbers += f"{collapse.over_tokens} at equal tokens"
    texts = {
        "over multiples": "accuracy depends on length / training length: the curves of all training lengths collapse",
        "over tokens": "accuracy depends on length in tokens, whatever the training length: the curves collapse",
        "over both": "the curves of all training lengths coincide over tokens and over multiples alike",
        "neither": "the curves of the training lengths collapse neither over tokens nor over multiples",
        "not resolved": "whether the curves of the training lengths collapse is not resolved",
    }
    return f"{texts[collapse.verdict]} ({numbers}; by their 95 % intervals, not in the error rate of the report)"


def _tests(results: Results, fit: LengthFit, subject: str) -> Iterator[Sentence]:
    """Counts of resolved differences between training lengths, at equal tokens and in effects of depth."""
    groups = {run.group for run in results.study.runs if run.name in {own.where.model for own in fit.runs}}
    pairs = {f"{a} − {b}" for a in groups for b in groups}
    where = fit.task, str(fit.format)
    own = [c for c in results.of("training length") if c.subject in pairs and (c.task, c.format) == where]
    tested = [c for c in own if c.refused is None]
    if tested:
        higher, lower = (sum(c.direction == direction for c in tested) for direction in ("higher", "lower"))
        text = f"at equal tokens the longer training length is more accurate in {higher} and less in {lower} of "
        runs = _on_runs(any(c.seeds is None for c in tested))
        yield Sentence(TRAINING_LENGTH, f"{subject}: {text}{len(tested)} comparisons of two{runs}.", subject=subject)
    effects = [e for e in results.depth_effects if _place(e) == _place(fit)]
    parts = []
    for at, name in (("tokens", "equal tokens"), ("multiple", "equal multiples")):
        tested = [e for e in effects if e.at == at and e.refused is None]
        resolved = sum(e.resolved for e in tested)
        if tested:
            parts.append(f"{resolved} of {len(tested)} at {name}")
    if parts:
        runs = _on_runs(any(e.seeds is None for e in effects if e.refused is None))
        text = f"effects of depth differ between training lengths in {listed(parts)}{runs}"
        yield Sentence(TRAINING_LENGTH, f"{subject}: {text}.", subject=subject)


def _on_runs(one_seed: bool) -> str:
    """With one training seed a statement is about the runs, and not about the architecture."""
    return f", {ON_THESE_RUNS} (one training seed)" if one_seed else ""


def _censored(fit: LengthFit) -> str:
    n = sum(run.at_least for run in fit.fitted)
    return f", {n} of them not seen to fall" if n else ""


def _p_text(fit: LengthFit) -> str:
    return "" if fit.p_report is None or fit.p_report >= 1 else f"; {p_text(fit.p_report)} in the report"


def _excluded(fit: LengthFit) -> str:
    left_out = [run for run in fit.runs if run.refused]
    if not left_out:
        return ""
    reasons = listed(dict.fromkeys(run.refused or "" for run in left_out))
    runs = "1 other run has" if len(left_out) == 1 else f"{len(left_out)} other runs have"
    return f"; {runs} no effective length: {reasons}"


def bounds_text(value: Bounded) -> str:
    """`1.02 (0.95 to 1.09)`, with `unbounded` for bounds that the data do not set."""
    low, high = ("unbounded" if math.isinf(x) else f"{x:.2f}".replace("-", "−") for x in value[1:])
    return f"{value.value:.2f} ({low} to {high})".replace("-", "−")


def fit_rows(results: Results) -> Rows:
    """One row per architecture, task and format: slope, multiple and verdict."""
    return [
        {
            **_place(fit),
            "runs": len(fit.fitted),
            "runs_left_out": len(fit.runs) - len(fit.fitted),
            "censored": sum(run.at_least for run in fit.fitted),
            **_bounded("slope", fit.slope),
            "centre": fit.centre,
            **_bounded("multiple", fit.multiple),
            "longest_length": fit.longest,
            "step": fit.step,
            "p": fit.p,
            "p_report": fit.p_report,
            "verdict": fit.verdict,
            "words": verdict_text(fit),
        }
        for fit in results.length_fits
    ]


def effective_length_rows(results: Results) -> Rows:
    """One row per run, with those that continued from another run."""
    return [
        {"model": run.where.model, **_place(fit), "training_length": run.context_length, "seed": run.seed}
        | {"in_fit": in_fit and run.refused is None, "base": run.base, "base_length": run.base_length}
        | {"level": run.level, "effective_length": run.tokens, "low": run.low, "high": run.high}
        | {"is_at_least": run.at_least, "multiple": run.multiple, "note": run.refused or ""}
        for fit in results.length_fits
        for in_fit, run in _runs(fit)
    ]


def collapse_rows(results: Results) -> Rows:
    """Root mean square differences between the curves of training lengths."""
    return [
        _place(c)
        | _estimate("multiples", c.over_multiples)
        | {"points_multiples": c.points_multiples}
        | _estimate("tokens", c.over_tokens)
        | {"points_tokens": c.points_tokens, "verdict": c.verdict, "note": c.note}
        for c in results.collapses
    ]


def depth_effect_rows(results: Results) -> Rows:
    """Differences of effects of depth between training lengths, tested or not."""
    return [
        {"effect": e.effect, "family": e.family, **_place(e), "longer": e.longer, "shorter": e.shorter}
        | {"at": e.at, "place": e.place, "samples": e.samples, "first": e.first, "second": e.second}
        | {"difference": e.difference, "low": e.low, "high": e.high, "p": e.p}
        | {"seeds_low": e.seeds[0] if e.seeds else None, "seeds_high": e.seeds[1] if e.seeds else None}
        | {"p_seeds": e.p_seeds, "p_report": e.p_report, "verdict": e.verdict}
        for e in results.depth_effects
    ]


def _runs(fit: LengthFit) -> Iterator[tuple[bool, EffectiveLength]]:
    yield from ((True, run) for run in fit.runs)
    yield from ((False, run) for run in fit.continued)


def _place(row: LengthFit | Collapse | DepthEffect) -> dict[str, Value]:
    f = row.format
    names = {"haystack": f.haystack, "key_format": f.key, "value_format": f.value}
    return {"architecture": row.architecture, "task": row.task, **names}


def _bounded(name: str, value: Bounded | None) -> dict[str, Value]:
    """Columns of an estimate; empty where it does not exist or is not bounded."""
    numbers = (None,) * 3 if value is None else tuple(x if math.isfinite(x) else None for x in value)
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))


def _estimate(name: str, value: Estimate | None) -> dict[str, Value]:
    numbers = (None,) * 3 if value is None else (value.value, value.low, value.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))
