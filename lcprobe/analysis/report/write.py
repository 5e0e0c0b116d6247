"""Writes the report: report.html (one file, no network), figures as SVG, PDF and PNG, tables as CSV and LaTeX, and
the same for a tracker.

The page opens anywhere: figures and its two scripts are inlined, and a content security policy forbids the network
and every other script. Everything that comes from data passes jinja2's autoescape.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from lcprobe.analysis.display_names import Inputs, named, names_of
from lcprobe.analysis.episodes import NO_EPISODES, ShownEpisodes
from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.inputs import StudyFacts
from lcprobe.analysis.report.answer.findings import findings, not_resolved
from lcprobe.analysis.report.answer.headline import HeadlineTable, headline_tables
from lcprobe.analysis.report.answer.limits import Limit, folded_limits
from lcprobe.analysis.report.answer.lines import AnswerLine, answer_lines
from lcprobe.analysis.report.blocks import InlinedFigure
from lcprobe.analysis.report.charts.render import render, save
from lcprobe.analysis.report.exports.downloads import downloads
from lcprobe.analysis.report.exports.files import keep_only, write_tables
from lcprobe.analysis.report.exports.tables import PAGE, page_tables
from lcprobe.analysis.report.figures import draw
from lcprobe.analysis.report.page.chapters import sections
from lcprobe.analysis.report.page.document import Answer, page_html
from lcprobe.analysis.report.summary import summary
from lcprobe.analysis.report.tables import TableRows, all_tables
from lcprobe.files import write_atomic
from lcprobe.tracking import NoTracker, Tracker

REPORT = "report.html"
FILES = (".svg", ".pdf", ".png")
"""What each figure is written as."""


@dataclass(frozen=True)
class Report:
    """A written report. summary: all of its sentences. headline, answer, findings, seen, limits: what a reader must
    know first (`report.answer`), findings ranked; seen: what is none, as it is not resolved. figures: SVG files by
    name. cells: rows of cells.csv. results: what it says, as values."""

    html: Path
    summary: list[str]
    headline: list[HeadlineTable]
    answer: list[AnswerLine]
    findings: list[str]
    seen: list[str]
    limits: list[Limit]
    figures: dict[str, Path]
    cells: TableRows
    results: Results


def write_report(
    study: StudyFacts,
    records: pa.Table,
    folder: Path,
    tracker: Tracker | None = None,
    context: pa.Table | None = None,
    episodes: ShownEpisodes = NO_EPISODES,
    names: Mapping[str, str] | None = None,
) -> Report:
    """Analyse records of SCHEMA, and of CONTEXT_SCHEMA, and write everything below `folder`, each file atomically.
    episodes: prompts of a few answers. names: those that the report gives to models (`analysis.display_names`).

    Raises DataError for records that cannot be counted. The same inputs give the same files, but for the
    order in which a PDF lists its fonts.
    """
    tracker = tracker or NoTracker()
    results = analyse(*named(Inputs(study, records, context), names or {}))
    episodes = episodes.under(names_of(study, names or {}))
    sentences, headline = summary(results), headline_tables(results)
    answer, found, limits = answer_lines(results, headline), findings(results), folded_limits(sentences)
    seen = not_resolved(results)
    inlined, figures = [], {}
    written: list[Path] = []
    for picture, figure in draw(results):
        rendered, path = render(figure), folder / "figures" / picture.name
        files = {suffix: path.with_name(path.name + suffix) for suffix in FILES}
        for file in files.values():
            save(rendered, file)
        written += files.values()
        figures[picture.name] = files[".svg"]
        on_page = rendered.for_page(f"f{len(inlined)}")
        inlined.append(InlinedFigure(picture, on_page.svg, on_page.spec))
        tracker.figure(f"report/{picture.name}", files[".png"])
    tables, chapters = all_tables(results), sections(results, inlined)
    for name, rows in tables.items():
        if rows:
            tracker.table(f"report/{name}", rows)
    page = page_tables([table for chapter in chapters for table in chapter.tables], headline)
    kept = write_tables(folder / "tables", tables, page)
    numbers = partial(downloads, [path for path in kept if path.suffix == ".csv" and path.parent.name != PAGE])
    html = folder / REPORT
    first = Answer(headline, answer, found, seen, limits, sentences)
    write_atomic(html, page_html(results, first, chapters, inlined, episodes, numbers))
    keep_only(folder / "tables", kept)
    keep_only(folder / "figures", written)
    texts, ranked, open_ = ([s.text for s in own] for own in (sentences, found, seen))
    return Report(html, texts, headline, answer, ranked, open_, limits, figures, tables["cells"], results)
