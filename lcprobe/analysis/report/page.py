"""What stands on the report's page, section by section, as plain strings: the template only lays it out and escapes it."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lcprobe.analysis.findings.cells import Estimate
from lcprobe.analysis.findings.contrasts import Contrast
from lcprobe.analysis.findings.gates import CONTROLS
from lcprobe.analysis.findings.load_records import numbers, texts
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report import prose
from lcprobe.analysis.report.blocks import Section, Table
from lcprobe.analysis.report.charts.picture import MAX_FORMATS
from lcprobe.analysis.report.wording import AT_THE_ENDS, at_an_end, p_text, signed, span_text
from lcprobe.errors import shown
from lcprobe.seeds import Stream

WRONG_ANSWERS = 20


def sections(results: Results, figures: Sequence[Any]) -> list[Section]:
    """All chapters after the summary; figures: items with `.picture` (figures.Picture)."""
    lengths, drawn = [_effective(results), _ratios(results)], _not_causal(results, "positions")
    made = [
        _models(results),
        _tasks(results, figures),
        _section(
            "length",
            "Accuracy against length",
            [*prose.LENGTH_TEXT, *_left_out(results), *drawn],
            figures,
            ["length"],
            lengths,
        ),
        _section(
            "place", "Place in the context", prose.PLACE_TEXT, figures, ["heatmap", "depth"], [_positions(results)]
        ),
        _section(
            "distance", "Accuracy against distance", prose.DISTANCE_TEXT, figures, ["distance"], [_reach(results)]
        ),
        _section("context", "Plain text by position", prose.CONTEXT_TEXT, figures, ["context"], _text(results)),
        _section("formats", "Formats", prose.FORMAT_TEXT, figures, ["formats"], _format_pairs(results)),
        _section("models-compared", "Models against each other", prose.MODEL_TEXT, figures, [], _pairs(results)),
        _section(
            "extensions",
            "Extensions",
            [*prose.EXTENSION_TEXT, *_not_causal(results, "method", "factor")],
            figures,
            [],
            _extensions(results),
        ),
        _section("bias", "Bias by distance", prose.BIAS_TEXT, figures, ["bias"], []),
        _section("training", "Training", prose.TRAINING_TEXT, figures, ["training"], []),
        Section("wrong", "Wrong answers", prose.WRONG_TEXT, tables=[_wrong(results)]),
        Section("cells", "All cells", prose.CELLS_TEXT, tables=[_cells(results)]),
        Section("methods", "How the numbers are made", prose.METHODS),
        _versions(results),
    ]
    return [s for s in made if s.tables or s.figures or s.folded or s.blocks or s.id == "methods"]


def overview(results: Results) -> Table:
    """Exact match by length, model and task, in the first format of each: what a reader wants to see before any sentence."""
    lengths = sorted({length for e in results.extrapolations for length, _, _ in e.by_length})
    trained = {run.context_length for run in results.study.runs}
    rows, first = [], {task.name: results.data.formats(task.name)[:1] for task in results.data.tasks}
    for e in results.extrapolations:
        if [e.where.format] == first[e.where.task]:
            found = {length: f"{x.value:.2f}" if isinstance(x, Estimate) else "n/a" for length, x, _ in e.by_length}
            chance = next((g.chance for g in results.gates if g.where == e.where), None)
            rows.append(
                [e.where.task, e.where.model, _decimal(chance), *(found.get(length, "") for length in lengths)]
            )
    names = [f"{length:,}{' (trained)' if length in trained else ''}" for length in lengths]
    caption = "Exact match by length in tokens, mean over all depths, first format of each task; n/a: not all cells are complete."
    return Table("At a glance", caption, ["task", "model", "chance", *names], rows)


def _models(results: Results) -> Section:
    study = results.study
    columns = list(dict.fromkeys(name for row in study.matching for name in row))
    rows = [[_value(row.get(name)) for name in columns] for row in study.matching]
    tables = (
        [Table("Matching", f"Largest difference in parameters: {study.mismatch:.2%}.", columns, rows)] if rows else []
    )
    names = [
        "model",
        "group",
        "seed",
        "training length",
        "tokens",
        "learning rate",
        "chosen by",
        "skipped steps",
        "seconds",
    ]
    runs = [
        [r.name, r.group, *map(_value, (r.seed, r.context_length, r.tokens, r.lr)), r.tuned, *map(_value, (r.skipped_steps,)),
         "" if r.seconds is None else f"{r.seconds:.0f}"]
        for r in study.runs
    ]  # fmt: skip
    tables.append(Table("Runs", "One row a trained model.", names, runs))
    digests = [[r.name, r.data_digest, r.checkpoint] for r in study.runs]
    equal = "equal" if len({r.data_digest for r in study.runs}) == 1 else "NOT equal"
    caption = f"The data digest covers every training batch in order; the digests are {equal}."
    tables.append(Table("Digests", caption, ["model", "data digest", "checkpoint"], digests))
    if study.sweep:
        names = list(dict.fromkeys(name for row in study.sweep for name in row))
        rows = [[_value(row.get(name)) for name in names] for row in study.sweep]
        tables.append(
            Table(
                "Learning-rate sweep", "Score: answer loss of short trials, the mean over their seeds.", names, rows
            )
        )
    return Section("models", "Models and matching", tables=tables)


def _tasks(results: Results, figures: Sequence[Any]) -> Section:
    tasks = results.data.tasks
    rows = [[t.name, t.description, _decimal(t.chance), "yes" if t.needs_lookup else "no"] for t in tasks]
    about = Table("Tasks", "Chance: choosing a value of the context without looking at the key; 1 where there is only one.",
                  ["task", "settings", "chance", "needs key look-up"], rows)  # fmt: skip
    columns = ["model", "task", "format", "length", "exact match", *(name.replace("_", " ") for name in CONTROLS)]
    columns += ["stated chance", "task", "key look-up", "copies whatever key"]
    words = {True: "yes", False: "no", None: ""}
    gates = [
        [*_place(g.where), _value(g.length), str(g.accuracy), *(str(g.controls.get(name, "")) for name in CONTROLS),
         _decimal(g.chance), g.acquired, g.lookup or "none needed", words[g.copies]]
        for g in results.gates
    ]  # fmt: skip
    caption = "At the base length: share (k/n, 95 % interval). The controls measure what is scored without retrieval."
    own = [f for f in figures if f.picture.chart == "skill"]
    examples = [(f"Example of {t.name}", t.example) for t in tasks if t.example]
    tables = [about, Table("Gates and controls", caption, columns, gates)]
    return Section("tasks", "Tasks, chance and controls", figures=own, tables=tables, blocks=examples)


def _section(
    id: str, title: str, text: Sequence[str], figures: Sequence[Any], charts: list[str], tables: list[Table]
) -> Section:
    """Figures of some charts, those of one task and format together; beyond a task's first format they are folded."""
    own = [f for f in figures if f.picture.chart in charts]
    order = list(dict.fromkeys((f.picture.task, f.picture.format) for f in own))
    shown, folds = [], {}
    first_format: dict[str, str] = {}
    for f in sorted(own, key=lambda f: order.index((f.picture.task, f.picture.format))):
        if first_format.setdefault(f.picture.task, f.picture.format) == f.picture.format:
            shown.append(f)
        else:
            folds.setdefault(f.picture.task, []).append(f)
    folded = [(f"{task}: other formats ({len(others)} figures)", others) for task, others in folds.items()]
    return Section(id, title, text, shown, folded, [t for t in tables if t.rows])


def _left_out(results: Results) -> list[str]:
    counts = {task.name: len(results.data.formats(task.name)) for task in results.data.tasks}
    return [
        f"Figures of {task} are drawn for the first {MAX_FORMATS} of its {n} formats; the format matrix and the tables have all."
        for task, n in counts.items()
        if n > MAX_FORMATS
    ]


def _effective(results: Results) -> Table:
    rows = [[*_place(e.where), str(e.base), _value(e.base_length), str(e)] for e in results.extrapolations]
    columns = ["model", "task", "format", "base", "base length", "effective length"]
    return Table("Effective length", "Base: share (k/n, 95 % interval).", columns, rows)


def _ratios(results: Results) -> Table:
    tests = {(c.subject, c.task, c.format, c.length): c for c in results.of("length")}
    rows = []
    for e in results.extrapolations:
        for length, estimate, ratio in e.by_length:
            test = tests.get((e.where.model, e.where.task, str(e.where.format), length))
            found = _numbers(test)[2:] if test else ["", "", "", "base" if length == e.base_length else ""]
            row = [*_place(e.where), _value(length), f"{length / e.context_length:g}", str(estimate)]
            rows.append([*row, "" if ratio is None else str(ratio), *found])
    columns = [
        "model",
        "task",
        "format",
        "length",
        "x training",
        "exact match",
        "ratio to base",
        "difference",
        "interval",
    ]
    caption = "Differences from the base, paired by sample; p after Holm over all lengths, positions and formats of a model and task."
    return Table("Extrapolation", caption, [*columns, "p (Holm)", "verdict"], rows)


def _positions(results: Results) -> Table:
    rows = [
        [c.subject, c.task, c.format, _value(c.length), c.what, *_numbers(c)]
        for c in results.of("lost in the middle", "primacy", "recency")
    ]
    return _contrast_table("Contrasts of position", rows, ["length", "contrast"])


def _format_pairs(results: Results) -> list[Table]:
    bases = {(e.where.model, e.where.task): e.base_length for e in results.extrapolations}
    rows = [
        [c.subject, c.task, c.what, _value(c.length), *_numbers(c)]
        for c in results.of("format")
        if c.length == bases[c.subject, c.task]
    ]
    return [_contrast_table("Pairs of formats at the base length", rows, ["length"], "formats")]


def _pairs(results: Results) -> list[Table]:
    rows = []
    for c in results.of("model"):
        seeds = "one seed" if c.seeds is None else span_text(*c.seeds)
        rows.append([c.subject, c.task, c.format, _value(c.length), *_numbers(c), seeds])
    table = _contrast_table("Pairs of models", rows, ["length"])
    return [Table(table.title, table.caption, [*table.columns, "over seeds"], rows)]


def _extensions(results: Results) -> list[Table]:
    """Gain over as trained; the interval over training seeds beside it, where there are several."""
    seeds = ["" if c.seeds is None else span_text(*c.seeds) for c in results.of("extension")]
    rows = [[c.subject, c.task, c.format, c.what, _value(c.length), *_numbers(c)] for c in results.of("extension")]
    table = _contrast_table("Gain over the model as trained", rows, ["method", "length"])
    if any(seeds):
        rows = [[*row, s] for row, s in zip(rows, seeds, strict=True)]
        return [Table(table.title, table.caption, [*table.columns, "over seeds"], rows)]
    return [table]


def _not_causal(results: Results, *reasons: str) -> list[str]:
    """Which columns are not causal by design, and which by a factor that follows the length."""
    said = {"positions": "Not causal by design: positions are drawn for the length of the whole sequence (model.positions)",
            "method": "Not causal by design: what a token sees depends on the length of the whole sequence",
            "factor": "The factor follows the length of the whole sequence (pe.factor=auto)"}  # fmt: skip
    found = {why: [run.name for run in results.study.runs if run.not_causal == why] for why in reasons}
    return [f"{said[why]}: {', '.join(names)}." for why, names in found.items() if names]


def _contrast_table(title: str, rows: list[list[str]], middle: list[str], third: str = "format") -> Table:
    columns = ["model", "task", third, *middle, "first", "second", "difference", "interval", "p (Holm)", "verdict"]
    caption = (
        "First − second; shares with k/n and 95 % interval. Everything, and n of each test, is in contrasts.csv."
    )
    return Table(title, caption, columns, rows)


def _reach(results: Results) -> Table:
    rows = [[*_place(r.where), str(r), str(h)] for r, h in zip(results.reaches, results.half_lives, strict=True)]
    caption = "Tokens between value and answer (95 % interval)."
    return Table(
        "Effective reach and half-life", caption, ["model", "task", "format", "effective reach", "half-life"], rows
    )


def _text(results: Results) -> list[Table]:
    curves = results.text
    rows = [
        [t.model, f"{b.low:,}–{b.high:,}", str(b.loss), "" if b.difference is None else str(b.difference)]
        for t in curves
        for b in t.bins
        if b is t.base or b.difference is not None
    ]
    caption = "Nats a token (95 % interval): the last bin inside the training length, and every bin past it."
    loss = Table(
        "Loss past the training length",
        caption,
        ["model", "tokens", "loss", "above the first row of the model"],
        rows,
    )
    rows = [
        [t.model, _value(at), str(t.state_rms[at]), _value(round(t.state_bytes[at])), *map(_value, t.not_finite)]
        for t in curves
        for at in t.state_rms
        if at in t.lengths
    ]
    caption = "Of one sequence. The counts are over all windows and positions."
    columns = ["model", "tokens", "root mean square", "bytes", "predictions not finite", "state values not finite"]
    state = Table("State", caption, columns, rows)
    rows = [
        [t.model, _value(at), _value(kept), str(mean)] for t in curves for (at, kept), mean in t.remembrance.items()
    ]
    caption = "Total variation between predictions after all tokens and after the last ones alone (95 % interval)."
    return [
        loss,
        state,
        Table("Remembrance", caption, ["model", "tokens", "last tokens kept", "total variation"], rows),
    ]


def _wrong(results: Results) -> Table:
    records = results.data.records
    status, control = texts(records, "status"), texts(records, "control")
    wrong = np.nonzero((status == "ok") & (control == "none") & (numbers(records, "exact") == 0))[0]
    drawn = np.sort(Stream("wrong answers").permutation(len(wrong))[:WRONG_ANSWERS]) if len(wrong) else wrong
    rows = records.take(pa.array(wrong[drawn], pa.int64())).to_pylist()
    shown_rows = [
        [r["model"], r["task"], f"{r['haystack']}/{r['key_format']}/{r['value_format']}", _value(r["length"]), f"{r['depth']:g}",
         shown(r["answer"]), shown(r["prediction"])]
        for r in rows
    ]  # fmt: skip
    columns = ["model", "task", "format", "length", "depth", "right answer", "printed"]
    return Table("Wrong answers", f"{len(rows)} of {len(wrong)} wrong answers.", columns, shown_rows)


def _cells(results: Results) -> Table:
    columns = [
        "model",
        "task",
        "format",
        "control",
        "length",
        "depth",
        "k/n",
        "accuracy",
        "interval",
        "failed",
        "chance",
        "skill",
    ]
    columns += ["skill's interval", "first token", "token accuracy", "log-lik. a token", "mean rank"]
    rows = []
    for c in results.cells:
        share = ["n/a", "", ""]
        if c.accuracy is not None and c.low is not None and c.high is not None:
            share = [f"{c.k}/{c.n}", f"{c.accuracy:.2f}", f"{c.low:.2f}–{c.high:.2f}"]
        names = ("first_token", "token_accuracy", "log_likelihood_per_token", "rank", "chance")
        means = [_decimal(c.means[name]) for name in names]
        place = [*_place(c.where), c.where.control, _value(c.length), f"{c.depth:g}"]
        low, high = c.skill_bounds
        skill = ["", ""] if c.skill is None else [f"{c.skill:.2f}", f"{_decimal(low)}–{_decimal(high)}"]
        chance = f"{means[-1]} *" if at_an_end(c) else means[-1]
        rows.append([*place, *share, _value(c.n_failed), chance, *skill, *means[:-1]])
    caption = "k of n queries exactly right; failed queries are no trials. Chance: stated, of choosing without looking at the key. "
    caption += "Skill: (accuracy − chance) / (1 − chance). Rank: of the true value among those of the context."
    caption += f" * {AT_THE_ENDS}" if any(at_an_end(c) for c in results.cells) else ""
    return Table("All cells", caption, columns, rows)


def _versions(results: Results) -> Section:
    study = results.study
    tables = [Table("Versions", "Exact versions of what made these numbers.", ["what", "version"],
                    [[name, str(value)] for name, value in study.versions.items()])]  # fmt: skip
    notes = [*study.notes, *_reading(results)]
    if notes:
        tables.append(
            Table("Notes", "What could not be built, and other remarks.", ["note"], [[note] for note in notes])
        )
    blocks = [("Resolved configuration", study.config_yaml)]
    return Section("versions", "Versions and configuration", tables=tables, blocks=blocks)


def _reading(results: Results) -> Iterable[str]:
    """How much of the prompts was read: what they have in common is read once."""
    records = results.data.records
    read, prompts = numbers(records, "read_tokens"), numbers(records, "prompt_tokens")
    known = ~np.isnan(read)
    if known.any():
        whole, part = prompts[known].sum(), read[known].sum()
        yield f"Prompts of {whole:,.0f} tokens were read as {part:,.0f}: {1 - part / whole:.0%} are shared by several questions"


def _numbers(contrast: Contrast) -> list[str]:
    c = contrast
    if c.difference is None or c.p_holm is None or c.low is None or c.high is None:
        return ["", "", "", "", "", c.verdict]
    sides = [str(side) if isinstance(side, Estimate) else "" for side in (c.first, c.second)]
    p = p_text(c.p_holm).removeprefix("p = ").removeprefix("p ")
    return [*sides, signed(c.difference), span_text(c.low, c.high), p, c.verdict]


def _place(where: Any) -> Iterable[str]:
    return where.model, where.task, str(where.format)


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _value(value: object) -> str:
    """A value of a table as text; whole numbers with separators."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
