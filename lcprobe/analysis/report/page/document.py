"""The page as one HTML file: answer, pictures, evidence, in this order, laid out by report.html.j2.

Whatever comes from data passes jinja2's autoescape; only figures, which are drawn from escaped data, and our own
style sheet and scripts are marked safe.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from lcprobe.analysis.episodes import NO_EPISODES, ShownEpisodes
from lcprobe.analysis.findings.extrapolation import SHARE_OF_BASE
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.tokenizers import length_note
from lcprobe.analysis.report.answer.findings import MAX_FINDINGS
from lcprobe.analysis.report.answer.headline import MAIN_TASKS, HeadlineTable
from lcprobe.analysis.report.answer.limits import Limit
from lcprobe.analysis.report.answer.lines import AnswerLine
from lcprobe.analysis.report.blocks import InlinedFigure, Section
from lcprobe.analysis.report.charts.seed_groups import names_of_models
from lcprobe.analysis.report.exports.downloads import BUDGET, Download
from lcprobe.analysis.report.page.chapters import without
from lcprobe.analysis.report.page.pictures import link_of, pictures, slug
from lcprobe.analysis.report.page.shades import shade
from lcprobe.analysis.report.page.size import LIMIT, fitted
from lcprobe.analysis.report.script import scripts
from lcprobe.analysis.report.summary import TOPICS
from lcprobe.analysis.report.wording import Sentence
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.errors import shorten
from lcprobe.words import and_list, counted

if TYPE_CHECKING:
    from jinja2 import Environment

NAMED_MODELS, MAX_NAME = 6, 60
"""Models that the head of the page names, and characters of each, at most."""
MAX_TITLE = 80
"""Characters of the page's title, at most."""
PER_LINK = 200
"""Bytes of a download besides its data."""


@dataclass(frozen=True)
class Answer:
    """What a reader must know first, as `report.answer` gives it. seen: what is no finding, as it is not resolved;
    sentences: everything that is said, limits, too."""

    tables: Sequence[HeadlineTable]
    lines: Sequence[AnswerLine]
    findings: Sequence[Sentence]
    seen: Sequence[Sentence]
    limits: Sequence[Limit]
    sentences: Sequence[Sentence]


def page_html(
    results: Results,
    answer: Answer,
    chapters: Sequence[Section],
    figures: Sequence[InlinedFigure],
    episodes: ShownEpisodes = NO_EPISODES,
    downloads: Callable[[int], Sequence[Download]] | None = None,
) -> str:
    """The whole page; what does not fit into its size is named with its file. chapters: `chapters.sections` of the
    same figures. downloads: those of so many bytes, which have what room all else leaves."""
    environment = page_environment()
    shown = pictures(results, figures, [*answer.findings, *answer.seen])
    in_pictures = [f for one in shown for exhibit in one.exhibits for f in exhibit.figures]
    chapters = [without(chapter, in_pictures) for chapter in chapters]
    ids = ["statements", *(chapter.id for chapter in chapters)]
    found, seen = ([(s, link_of(s, shown, ids)) for s in own] for own in (answer.findings, answer.seen))
    topics = [(topic, [s for s in answer.sentences if s.topic == topic]) for topic in TOPICS]
    parts = {
        "study": results.study,
        "models": _models_text(results),
        "model_names": json.dumps(names_of_models(results)),
        "n_rows": len(results.data.records),
        "n_failed": results.data.n_failed,
        "answer": answer,
        "tables": answer.tables[:MAIN_TASKS],
        "more_tables": answer.tables[MAIN_TASKS:],
        "note": length_note(results.study),
        "share": SHARE_OF_BASE,
        "findings": found[:MAX_FINDINGS],
        "more_findings": found[MAX_FINDINGS:],
        "seen": seen,
        "episodes": episodes,
        "topics": [(topic, own) for topic, own in topics if own],
        "style": files("lcprobe.analysis.report").joinpath("report.css").read_text(encoding="utf-8"),
        "scripts": scripts(),
    }
    template = environment.get_template("report.html.j2")
    bare = downloads(0) if downloads is not None else ()
    taken = len(template.render(**parts, downloads=bare, pictures=[], chapters=[]).encode())
    while True:
        laid = dict(zip(("pictures", "chapters"), fitted(shown, chapters, taken), strict=True))
        html = template.render(**parts, **laid, downloads=bare)
        over = len(html.encode()) - LIMIT
        if over <= 0 or taken > LIMIT:  # more than the limit without any picture or table: nothing can be left out
            break
        taken += over
    if downloads is None or over > -PER_LINK * len(bare):
        return html
    room = min(BUDGET, -over - PER_LINK * len(bare))
    return template.render(**parts, **laid, downloads=downloads(room))


def page_environment() -> "Environment":
    """The templates of this folder; what they print is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lcprobe.analysis.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["shade"] = shade
    environment.filters["slug"] = slug
    environment.filters["shortened"] = lambda text: shorten(text, MAX_TITLE)
    environment.tests["proportion"] = lambda value: isinstance(value, Proportion)
    return environment


def _models_text(results: Results) -> str:
    """Names of the models; of many, their number and the first names."""
    runs = results.study.runs
    names = [shorten(name, MAX_NAME) for name in dict.fromkeys(run.architecture or run.group for run in runs)]
    if len(runs) <= NAMED_MODELS:
        return and_list([shorten(run.name, MAX_NAME) for run in runs])
    models = len({(run.group, run.extension) for run in runs})
    count = counted(models, "model")
    if models < len(runs):
        count = f"{counted(len(runs), 'run')} of {count}"
    return f"{count} ({and_list(names, NAMED_MODELS)})"
