"""Tables of the page about findings: extrapolation, contrasts, reach and half-life, plain text."""

from collections.abc import Iterable
from dataclasses import replace

from lcprobe.analysis.findings.contrasts import Contrast
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.blocks import Table, panel_columns, value_text
from lcprobe.analysis.report.charts.distance import bins_of
from lcprobe.analysis.report.training_length import bounds_text
from lcprobe.analysis.report.wording import p_text, signed, span_text
from lcprobe.words import span


def effective_table(results: Results) -> Table:
    """Base and effective length of every model, task and format."""
    rows = [
        [*panel_columns(e.where), str(e.base), "" if e.base_length is None else value_text(e.base_length), str(e)]
        for e in results.extrapolations
    ]
    columns = ["model", "task", "format", "base", "base length", "effective length"]
    return Table(
        "Effective length",
        "Base: accuracy at the length of the best skill up to the training length (k/n, 95 % interval).",
        columns,
        rows,
    )


def ratio_table(results: Results) -> Table:
    """Accuracy by length, its ratio to that at the reference length and the test of the difference."""
    tests = {(c.subject, c.task, c.format, c.length): c for c in results.of("length")}
    rows = []
    for e in results.extrapolations:
        for length, estimate, ratio in e.by_length:
            test = tests.get((e.where.model, e.where.task, str(e.where.format), length))
            is_reference = "reference" if length == e.reference_length else ""
            difference = ["", "", "", is_reference] if test is None else _test_columns(test)[2:]
            beyond = " *" if e.trained_end < length <= e.context_length else ""
            multiple = f"{length / e.context_length:g}{beyond}"
            row = [*panel_columns(e.where), value_text(length), multiple, str(estimate)]
            rows.append([*row, "" if ratio is None else str(ratio), *difference])
    columns = ["model", "task", "format", "length", "x training", "exact match", "ratio to reference"]
    columns += ["difference", "interval", "p (report)", "verdict"]
    caption = "Differences from the reference length (the training length or the nearest below), paired by sample; "
    caption += "p in the report."
    if any("*" in row[4] for row in rows):
        caption += " * Past the distances that training asked about, though not past the training length."
    return Table("Extrapolation", caption, columns, rows, "extrapolation.csv")


def position_table(results: Results) -> Table:
    """Contrasts between the ends and the middle of the context."""
    rows = [
        [c.subject, c.task, c.format, value_text(c.length), c.what, *_test_columns(c)]
        for c in results.of("lost in the middle", "primacy", "recency")
    ]
    table = _contrast_table("Contrasts of position", rows, ["length", "contrast"])
    return replace(table, caption=f"{table.caption} The difference is in skill, the sides are accuracies.")


def length_fit_table(results: Results) -> Table:
    """Effective length against training length: slope, level and verdict of every architecture."""
    curves = {(c.architecture, c.task, c.format): c for c in results.collapses}
    rows = []
    for fit in results.length_fits:
        curve = curves[fit.architecture, fit.task, fit.format]
        sides = ["" if x is None else str(x) for x in (curve.over_multiples, curve.over_tokens)]
        numbers = ["" if x is None else bounds_text(x) for x in (fit.slope, fit.multiple)]
        runs = f"{len(fit.fitted)} of {len(fit.runs)}"
        verdict = fit.note if fit.verdict == "not tested" else fit.verdict
        row = [fit.architecture, fit.task, str(fit.format), runs, str(sum(run.at_least for run in fit.fitted))]
        rows.append([*row, *numbers, verdict, *sides, curve.verdict])
    columns = ["architecture", "task", "format", "runs in the fit", "not seen to fall", "slope", "x training length"]
    columns += ["verdict", "difference at equal multiples", "difference at equal tokens", "curves collapse"]
    caption = (
        "Slope of log2 effective length over log2 training length, and effective length / training length in the "
    )
    caption += (
        "middle of the training lengths (95 % interval). Differences: root mean square between the curves of two "
    )
    caption += "training lengths. The effective length of every run is in effective_length.csv."
    return Table("Effective length against training length", caption, columns, rows)


def training_length_table(results: Results) -> Table:
    """Pairs of training lengths at equal lengths."""
    tests = results.of("training length")
    rows = [[c.subject, c.task, c.format, value_text(c.length), *_test_columns(c)] for c in tests]
    table = _contrast_table("Pairs of training lengths", rows, ["length"])
    return _with_column(table, "over seeds", map(_over_seeds, tests))


def depth_effect_table(results: Results) -> Table:
    """Effects of depth that differ between two training lengths; all of them are in depth_effects.csv."""
    found = [e for e in results.depth_effects if e.resolved]
    rows = [
        [
            *(e.architecture, e.task, str(e.format), e.effect, f"{e.longer:,} − {e.shorter:,}"),
            f"{e.place:,g} tokens" if e.at == "tokens" else f"{e.place:g} x",
            *map(signed, (e.first, e.second, e.difference)),
            span_text(e.low, e.high),
            "" if e.p_report is None else p_text(e.p_report).removeprefix("p = ").removeprefix("p "),
            e.verdict,
        ]
        for e in found
    ]
    columns = ["architecture", "task", "format", "effect", "training lengths", "at", "first", "second", "difference"]
    columns += ["interval", "p (report)", "verdict"]
    n_tested = sum(e.refused is None for e in results.depth_effects)
    caption = (
        f"The {len(found)} of {n_tested} tested differences that are resolved; depth_effects.csv has all. In skill. "
    )
    caption += "Primacy: start − middle; recency: end − middle; lost in the middle: both."
    return Table("Effects of depth between training lengths", caption, columns, rows)


def format_table(results: Results) -> Table:
    """Pairs of formats at the reference length."""
    lengths = {(e.where.model, e.where.task): e.reference_length for e in results.extrapolations}
    rows = [
        [c.subject, c.task, c.what, value_text(c.length), *_test_columns(c)]
        for c in results.of("format")
        if c.length == lengths[c.subject, c.task]
    ]
    return _contrast_table("Pairs of formats at the reference length", rows, ["length"], "formats")


def model_pair_table(results: Results) -> Table:
    """Pairs of models over all depths: over all lengths of a zone, then length by length."""
    tests = results.of("models", "model")
    rows = [[c.subject, c.task, c.format, _lengths_text(c), *_test_columns(c)] for c in tests]
    return _with_column(_contrast_table("Pairs of models", rows, ["length"]), "over seeds", map(_over_seeds, tests))


def extension_table(results: Results) -> Table:
    """Gain over the model as trained; with the interval over training seeds, where there are several."""
    tests = results.of("extension")
    rows = [[c.subject, c.task, c.format, c.what, value_text(c.length), *_test_columns(c)] for c in tests]
    table = _contrast_table("Gain over the model as trained", rows, ["method", "length"])
    several = any(c.seeds is not None for c in tests)
    return _with_column(table, "over seeds", map(_over_seeds, tests)) if several else table


def reach_table(results: Results) -> Table:
    """Effective reach and half-life."""
    rows = [
        [*panel_columns(r.where), str(r), str(h)] for r, h in zip(results.reaches, results.half_lives, strict=True)
    ]
    columns = ["model", "task", "format", "effective reach", "half-life"]
    return Table("Effective reach and half-life", "Tokens between value and answer (95 % interval).", columns, rows)


def distance_table(results: Results) -> Table:
    """Exact match by distance at each length."""
    rows = [
        [*panel_columns(r.where), value_text(length), f"{one.low:,}–{one.high:,}", str(one.estimate)]
        for r in results.reaches
        for length in results.data.lengths(r.where.task, r.where.format)
        for one in bins_of(results, [r.where], length)
    ]
    columns = ["model", "task", "format", "length", "tokens between value and answer", "exact match"]
    caption = "At each length by itself, over its depths, in half octaves of distance (k/n, 95 % interval)."
    return Table("Exact match by length and distance", caption, columns, rows, "distance.csv")


def text_tables(results: Results) -> list[Table]:
    """Loss past the training length, state and remembrance on plain text."""
    rows = [
        [t.model, f"{b.low:,}–{b.high:,}", str(b.loss), "" if b.difference is None else str(b.difference)]
        for t in results.text
        for b in t.bins
        if b is t.base or b.difference is not None
    ]
    caption = "Nats per token (95 % interval): the last bin inside the training length, and every bin past it."
    columns = ["model", "tokens", "loss", "above the first row of the model"]
    loss = Table("Loss past the training length", caption, columns, rows)
    rows = [
        [
            t.model,
            value_text(at),
            str(t.state_rms[at]),
            value_text(round(t.state_bytes[at])),
            *map(value_text, t.not_finite),
        ]
        for t in results.text
        for at in t.state_rms
        if at in t.lengths
    ]
    caption = "State of one sequence. The counts are over all windows and positions."
    columns = ["model", "tokens", "root mean square", "bytes", "predictions not finite", "state values not finite"]
    state = Table("State", caption, columns, rows)
    rows = [
        [t.model, value_text(at), value_text(kept), str(mean)]
        for t in results.text
        for (at, kept), mean in t.remembrance.items()
    ]
    caption = "Total variation between predictions after all tokens and after the last ones alone (95 % interval)."
    columns = ["model", "tokens", "last tokens kept", "total variation"]
    return [loss, state, Table("Remembrance", caption, columns, rows)]


def _contrast_table(title: str, rows: list[list[str]], middle: list[str], third: str = "format") -> Table:
    columns = ["model", "task", third, *middle, "first", "second", "difference", "interval", "p (report)", "verdict"]
    caption = "First − second; proportions with k/n and 95 % interval. "
    caption += "All contrasts, with the n of each test, are in contrasts.csv."
    return Table(title, caption, columns, rows, "contrasts.csv")


def _lengths_text(contrast: Contrast) -> str:
    """`1,024`, or of all lengths of a zone `past the training length (256 to 1,024)`."""
    c = contrast
    return value_text(c.length) if c.zone is None else f"{c.zone} ({span(c.lengths)})"


def _over_seeds(contrast: Contrast) -> str:
    """Bounds over training seeds, `one seed` where a side of the test has no more; empty without a test."""
    if contrast.refused is not None:
        return ""
    return "one seed" if contrast.seeds is None else span_text(*contrast.seeds)


def _with_column(table: Table, name: str, values: Iterable[str]) -> Table:
    rows = [[*row, value] for row, value in zip(table.rows, values, strict=True)]
    return replace(table, columns=[*table.columns, name], rows=rows)


def _test_columns(contrast: Contrast) -> list[str]:
    """Both sides, difference, interval, p and verdict."""
    c = contrast
    if c.difference is None or c.p_report is None or c.low is None or c.high is None:
        return ["", "", "", "", "", c.verdict]
    sides = ["" if side is None else str(side) for side in (c.first, c.second)]
    p = p_text(c.p_report).removeprefix("p = ").removeprefix("p ")
    return [*sides, signed(c.difference), span_text(c.low, c.high), p, c.verdict]
