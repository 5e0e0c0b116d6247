"""The page: answer, pictures, evidence in this order; every part can be linked to; names from data stay text."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.report.answer.findings import MAX_FINDINGS, findings, not_resolved
from lcprobe.analysis.report.answer.headline import headline_tables
from lcprobe.analysis.report.answer.limits import folded_limits
from lcprobe.analysis.report.answer.lines import answer_lines
from lcprobe.analysis.report.blocks import InlinedFigure
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.page.chapters import sections
from lcprobe.analysis.report.page.document import Answer, page_html
from lcprobe.analysis.report.page.size import LIMIT
from lcprobe.analysis.report.summary import summary
from tests.analysis.fabricated import flat, plan, records, run, study, task, three_models, with_column

HOSTILE = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        self.text += data


def figures_of(results: Results) -> list[InlinedFigure]:
    """A stand-in for every figure of a task and format that pictures and chapters lay out."""
    places = [(t.name, str(f)) for t in results.data.tasks for f in results.data.formats(t.name)]
    made = [
        Picture(f"{chart}-{i}", chart, task, format, f"{task} {format}", "caption")
        for chart in ("heatmap", "depth", "length", "distance")
        for i, (task, format) in enumerate(places)
    ]
    return [InlinedFigure(picture, f"<svg class='{picture.name}'></svg>", "{}") for picture in made]


def html_of(results: Results, figures: list[InlinedFigure]) -> str:
    headline, sentences = headline_tables(results), summary(results)
    found, limits = findings(results), folded_limits(sentences)
    answer = Answer(headline, answer_lines(results, headline), found, not_resolved(results), limits, sentences)
    return page_html(results, answer, sections(results, figures), figures)


@pytest.fixture(scope="module")
def results():
    return analyse(*three_models(["words"]))


@pytest.fixture(scope="module")
def page(results):
    return html_of(results, figures_of(results))


def test_the_answer_comes_before_pictures_and_these_before_the_evidence(page):
    ids = [a["id"] for _, a in Tags(page).tags if "id" in a]
    parts = ["answer", "headline-single", "findings", "limits", "pictures", "evidence", "statements", "cells"]
    assert [i for i in ids if i in parts] == parts


def test_every_link_has_a_target_and_every_part_a_link(page):
    tags = Tags(page).tags
    ids = Counter(a["id"] for _, a in tags if "id" in a)
    assert max(ids.values()) == 1, ids.most_common(3)
    links = {a["href"][1:] for tag, a in tags if tag == "a"}
    assert links <= set(ids)
    figures = {a["id"] for tag, a in tags if tag == "figure"}
    tables = {i for i in ids if i.startswith(("table-", "headline-"))}
    assert figures
    assert tables
    assert figures | tables | {"answer", "findings", "limits", "cells", "place", "methods"} <= links


def test_each_figure_is_there_once_whether_it_is_a_picture_or_evidence(page, results):
    shown = Counter(re.findall(r"<svg class='([^']+)'>", page))
    assert shown == Counter(f.picture.name for f in figures_of(results))
    pictures = page[page.index('id="pictures"') : page.index('id="evidence"')]
    assert {"heatmap-0", "length-0", "distance-0"} <= set(re.findall(r"<svg class='([^']+)'>", pictures))


def test_findings_stand_in_the_list_and_beside_their_picture(page, results):
    found = findings(results)
    assert len(found) > MAX_FINDINGS
    first = page[page.index('id="findings"') : page.index('id="limits"')]
    assert first.index("<details>") > max(first.index(s.text[len(s.subject) :]) for s in found[:MAX_FINDINGS])
    pictures = page[page.index('id="pictures"') : page.index('id="evidence"')]
    assert all(s.text[len(s.subject) :].lstrip(": ")[:40] in pictures for s in found if s.topic != "Formats")


def test_names_from_data_stay_text(results):
    cells = plan([HOSTILE], [(HOSTILE, "words", "numbers")], [64, 128, 256], [0.0, 0.5, 1.0], 20)
    facts = study(
        [run(HOSTILE), run("b")], [task(HOSTILE)], cells, name=HOSTILE, notes=[HOSTILE], config_yaml=HOSTILE
    )
    table = records({HOSTILE: flat(0.9), "b": flat(0.1)}, cells)
    table = with_column(table, "prediction", [HOSTILE] * len(table))
    html = html_of(analyse(facts, table), [])
    clean = html_of(results, [])
    kinds = [
        Counter(tag for tag, _ in Tags(text).tags if tag in ("script", "img", "iframe")) for text in (html, clean)
    ]
    assert kinds[0] == kinds[1] == {"script": 2}
    assert not [name for _, a in Tags(html).tags for name in a if name.startswith("on")]
    assert HOSTILE in Tags(html).text


def test_a_long_name_is_shortened_where_it_is_a_title(results):
    name = "all work and no play " * 40
    tags = Tags(html_of(replace(results, data=replace(results.data, study=replace(results.study, name=name))), []))
    (heading,) = [attributes for tag, attributes in tags.tags if tag == "h1"]
    assert heading["title"] == name
    assert name[:100] not in tags.text
    assert name[:60] in tags.text


def test_what_is_flat_is_folded(results):
    """Among the pictures and in the chapter of a task that has none there; everything else is open."""
    figures = figures_of(results)
    flat_one = next(f for f in figures if f.picture.chart == "depth")
    changed = replace(flat_one, picture=replace(flat_one.picture, folded="Depth profile at 128 tokens: flat"))
    html = html_of(results, [changed if f is flat_one else f for f in figures])
    before, _, after = html.partition("<summary>Depth profile at 128 tokens: flat</summary>")
    assert f'id="fig-{flat_one.picture.name}"' not in before
    assert f'id="fig-{flat_one.picture.name}"' in after.partition("</details>")[0]


def test_a_page_keeps_to_its_limit_and_names_what_it_left_out(results):
    figures = [InlinedFigure(f.picture, f"<svg>{'x' * 300_000}</svg>", "{}") for f in figures_of(results)]
    html = html_of(results, figures)
    assert 0.9 * LIMIT < len(html.encode()) <= LIMIT
    assert "Too large for this page: figures/" in html
