"""Writes the report: report.html (one file, no network), figures/* as SVG, PDF and PNG,
tables/*.csv, and the same for a tracker.

The page opens anywhere: figures and its two scripts are inlined, and a content security policy forbids the network
and every other script. Everything that comes from data passes jinja2's autoescape.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pyarrow as pa

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.inputs import StudyFacts
from lcprobe.analysis.report.blocks import InlinedFigure
from lcprobe.analysis.report.cell_tables import overview
from lcprobe.analysis.report.charts.render import render, save
from lcprobe.analysis.report.figures import draw
from lcprobe.analysis.report.page import sections, with_notion
from lcprobe.analysis.report.script import scripts
from lcprobe.analysis.report.summary import TOPICS, summary
from lcprobe.analysis.report.tables import TableRows, all_tables, write_csv
from lcprobe.analysis.report.wording import Sentence
from lcprobe.files import write_atomic
from lcprobe.tracking import NoTracker, Tracker

REPORT = "report.html"
FILES = (".svg", ".pdf", ".png")
"""What each figure is written as."""
OPEN_SENTENCES = 24
"""Statements of a topic that are not folded at first."""
NAMED_MODELS = 12
"""Number of models up to which the head of the page names each."""


@dataclass(frozen=True)
class Report:
    """A written report. summary: plain sentences. figures: SVG files by name. cells: rows of cells.csv."""

    html: Path
    summary: list[str]
    figures: dict[str, Path]
    cells: TableRows


def write_report(
    study: StudyFacts,
    records: pa.Table,
    folder: Path,
    tracker: Tracker | None = None,
    context: pa.Table | None = None,
) -> Report:
    """Analyse records of SCHEMA, and of CONTEXT_SCHEMA, and write everything below `folder`, each file atomically.

    Raises DataError for records that cannot be counted. The same inputs give the same files.
    """
    tracker = tracker or NoTracker()
    results = analyse(study, records, context)
    sentences = summary(results)
    inlined, figures = [], {}
    for picture, figure in draw(results):
        rendered, path = render(figure), folder / "figures" / picture.name
        for suffix in FILES:
            save(rendered, path.with_name(path.name + suffix))
        figures[picture.name] = path.with_name(path.name + ".svg")
        on_page = rendered.for_page(f"f{len(inlined)}")
        inlined.append(InlinedFigure(picture, on_page.svg, on_page.spec))
        tracker.figure(f"report/{picture.name}", path.with_name(path.name + ".png"))
    tables = all_tables(results)
    for name, rows in tables.items():
        if rows:
            write_csv(folder / "tables" / f"{name}.csv", rows)
            tracker.table(f"report/{name}", rows)
    html = folder / REPORT
    write_atomic(html, _html(results, sentences, inlined))
    return Report(html, [s.text for s in sentences], figures, tables["cells"])


def _html(results: Results, sentences: list[Sentence], figures: list[InlinedFigure]) -> str:
    from jinja2 import Environment, StrictUndefined

    source = files("lcprobe.analysis.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    topics = [(topic, [s for s in sentences if s.topic == topic]) for topic in TOPICS]
    return environment.from_string(source).render(
        scripts=scripts(),
        study=results.study,
        models=_models_text(results),
        open_sentences=OPEN_SENTENCES,
        topics=[(topic, own) for topic, own in topics if own],
        overview=with_notion(overview(results), results),
        sections=sections(results, figures),
        n_rows=len(results.data.records),
        n_failed=results.data.n_failed,
    )


def _models_text(results: Results) -> str:
    """Names of the models; of many, their number and architectures."""
    runs = results.study.runs
    if len(runs) <= NAMED_MODELS:
        return ", ".join(run.name for run in runs)
    names = dict.fromkeys(run.architecture or run.group for run in runs)
    return f"{len(runs)} models ({', '.join(names)})"
