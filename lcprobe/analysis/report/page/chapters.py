"""Chapters of the report's page, as plain strings: the template only lays them out and escapes them."""

from collections.abc import Sequence
from dataclasses import replace

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.tokenizers import length_note, own_tokens_note
from lcprobe.analysis.inputs import NotCausal
from lcprobe.analysis.report import prose
from lcprobe.analysis.report.blocks import InlinedFigure, Section, Table
from lcprobe.analysis.report.cell_tables import cell_table, wrong_answers
from lcprobe.analysis.report.charts.picture import MAX_FORMATS
from lcprobe.analysis.report.finding_tables import (
    depth_effect_table,
    distance_table,
    effective_table,
    extension_table,
    format_table,
    length_fit_table,
    model_pair_table,
    position_table,
    ratio_table,
    reach_table,
    text_tables,
    training_length_table,
)
from lcprobe.analysis.report.flags import held_equal
from lcprobe.analysis.report.published.chapter import published_section
from lcprobe.analysis.report.study_tables import model_tables, task_tables, version_tables
from lcprobe.analysis.report.training_length import verdict_text
from lcprobe.analysis.report.wording import one_line, panel_subject

NOT_CAUSAL: dict[NotCausal, str] = {
    "positions": "Not causal by design: positions are drawn for the length of the whole sequence (model.positions)",
    "method": "Not causal by design: the output at a token depends on the length of the whole sequence",
    "factor": "The factor follows the length of the whole sequence (pe.factor=auto)",
}


def sections(results: Results, figures: Sequence[InlinedFigure]) -> list[Section]:
    """All chapters of the evidence, those without any content left out."""

    def section(
        id: str, title: str, text: Sequence[str], charts: Sequence[str] = (), tables: Sequence[Table] = ()
    ) -> Section:
        return _section(id, title, text, [f for f in figures if f.picture.chart in charts], tables)

    examples = [(f"Example of {t.name}", t.example) for t in results.data.tasks if t.example]
    skill = [f for f in figures if f.picture.chart == "skill"]
    length_text = [*prose.LENGTH_TEXT, *_undrawn_formats(results), *_not_causal(results, "positions")]
    extension_text = [*prose.EXTENSION_TEXT, *_not_causal(results, "method", "factor")]
    versions, config = version_tables(results), [("Resolved configuration", results.study.config_yaml)]
    several = bool(results.length_fits)  # then the curves by length are in the chapter about training length
    chapters = [
        section(
            "training-length",
            "Training length",
            _training_length(results),
            ["effective_length", "length", "multiple"] if several else [],
            [length_fit_table(results), training_length_table(results)],
        ),
        Section("models", "Models and matching", tables=model_tables(results)),
        Section("tasks", "Tasks, chance and controls", figures=skill, tables=task_tables(results), blocks=examples),
        section(
            "length",
            "Accuracy against length",
            length_text,
            [] if several else ["length"],
            [effective_table(results), ratio_table(results)],
        ),
        section(
            "place",
            "Position in the context",
            prose.POSITION_TEXT,
            ["heatmap", "depth", "depth_by_length"],
            [position_table(results), depth_effect_table(results)],
        ),
        section(
            "distance",
            "Accuracy against distance",
            prose.DISTANCE_TEXT,
            ["distance"],
            [reach_table(results), distance_table(results)],
        ),
        section("context", "Plain text by position", prose.CONTEXT_TEXT, ["context"], text_tables(results)),
        section("formats", "Formats", prose.FORMAT_TEXT, ["formats"], [format_table(results)]),
        section("models-compared", "Model comparisons", prose.MODEL_TEXT, tables=[model_pair_table(results)]),
        section("extensions", "Extensions", extension_text, tables=[extension_table(results)]),
        section("bias", "Bias by distance", prose.BIAS_TEXT, ["bias"]),
        section("training", "Training", prose.TRAINING_TEXT, ["training", "training_data"]),
        Section("wrong", "Wrong answers", prose.WRONG_ANSWERS_TEXT, tables=[wrong_answers(results)]),
        Section("cells", "All cells", prose.CELLS_TEXT, tables=[cell_table(results)]),
        Section("methods", "Methods", prose.METHODS_TEXT),
        Section("versions", "Versions and configuration", tables=versions, blocks=config),
    ]
    if (published := published_section(results)) is not None:
        chapters.insert(0, published)
    kept = [s for s in chapters if s.tables or s.figures or s.folded or s.blocks or s.id == "methods"]
    return [replace(s, tables=[with_notion(table, results) for table in s.tables]) for s in kept]


def without(chapter: Section, shown: Sequence[InlinedFigure]) -> Section:
    """A chapter without figures that are shown among the pictures, which it names."""
    names = {f.picture.name for f in shown}
    own = [*chapter.figures, *(f for _, others in chapter.folded for f in others)]
    folded = [(title, [f for f in others if f.picture.name not in names]) for title, others in chapter.folded]
    return replace(
        chapter,
        figures=[f for f in chapter.figures if f.picture.name not in names],
        folded=[(title, others) for title, others in folded if others],
        shown=[f for f in own if f.picture.name in names],
    )


def with_notion(table: Table, results: Results) -> Table:
    """A table whose caption says what its lengths and tokens count, where models have several tokenizers."""
    columns, note = {*table.columns}, ""
    if columns & {"tokens", "effective reach", "training length"}:
        note = own_tokens_note(results.study)
    elif any("length" in name for name in columns):
        note = length_note(results.study)
    return replace(table, caption=f"{table.caption} {note}".strip())


def _section(
    id: str, title: str, text: Sequence[str], figures: Sequence[InlinedFigure], tables: Sequence[Table]
) -> Section:
    """Figures of one task and format together; flat ones, and those beyond a task's first format, are folded."""
    order = list(dict.fromkeys((f.picture.task, f.picture.format) for f in figures))
    first_format: dict[str, str] = {}
    shown, folds, flat = [], {}, []
    for f in sorted(figures, key=lambda f: order.index((f.picture.task, f.picture.format))):
        if first_format.setdefault(f.picture.task, f.picture.format) == f.picture.format:
            (flat if f.picture.folded else shown).append(f)
        else:
            folds.setdefault(f.picture.task, []).append(f)
    folded = [(f"{f.picture.task}: {f.picture.folded}", [f]) for f in flat]
    folded += [(f"{task}: other formats ({len(others)} figures)", others) for task, others in folds.items()]
    return Section(id, title, text, shown, folded, [t for t in tables if t.rows])


def _training_length(results: Results) -> list[str]:
    """What was held equal, what the fits support, and how to read the figures."""
    found = [s.text for s in held_equal(results.study)] if results.length_fits else []
    for fit in results.length_fits:
        if fit.format == results.data.formats(fit.task)[0]:
            found.append(f"{panel_subject(results.data, PanelKey(fit.architecture, fit.task, fit.format))}: ")
            found[-1] += f"{verdict_text(fit)}."
    return [*prose.TRAINING_LENGTH_TEXT, *map(one_line, found)]


def _undrawn_formats(results: Results) -> list[str]:
    counts = {task.name: len(results.data.formats(task.name)) for task in results.data.tasks}
    return [
        f"Figures of {task} are drawn for the first {MAX_FORMATS} of its {n} formats; "
        "the format matrix and the tables have all."
        for task, n in counts.items()
        if n > MAX_FORMATS
    ]


def _not_causal(results: Results, *reasons: NotCausal) -> list[str]:
    """One line per reason with the models that it applies to."""
    models: dict[NotCausal, list[str]] = {
        reason: [run.name for run in results.study.runs if run.not_causal == reason] for reason in reasons
    }
    return [f"{NOT_CAUSAL[reason]}: {', '.join(names)}." for reason, names in models.items() if names]
