"""The page in a browser without scripts: narrow tables keep their first column in sight, and paper has no folds."""

from typing import Any

import pytest

from lcprobe.analysis.findings.results import analyse
from tests.analysis.fabricated import three_models
from tests.analysis.report.page.test_document import figures_of, html_of


@pytest.fixture(scope="module")
def opened(new_page, tmp_path_factory) -> Any:
    results = analyse(*three_models(["words"]))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_of(results, figures_of(results)), encoding="utf-8")
    page = new_page(viewport={"width": 390, "height": 800}, java_script_enabled=False)
    page.goto(path.as_uri())
    return page


def test_the_first_column_of_a_table_stays_when_it_is_scrolled(opened):
    scroll = opened.locator("#headline-single .scroll")
    assert scroll.evaluate("s => s.scrollWidth > s.clientWidth")
    scroll.evaluate("s => s.scrollLeft = 200")
    left = "([s, c]) => s.querySelector(c).getBoundingClientRect().left - s.getBoundingClientRect().left"
    handle = scroll.element_handle()
    assert opened.evaluate(left, [handle, "tbody tr > :first-child"]) <= 2
    assert opened.evaluate(left, [handle, "tbody tr > :nth-child(2)"]) < 0


def test_a_link_to_a_folded_chapter_opens_it(opened):
    assert not opened.locator("#cells").is_visible()
    opened.goto(opened.url.split("#")[0] + "#cells")
    assert opened.locator("#cells").is_visible()
    opened.goto(opened.url.split("#")[0])


def test_paper_shows_what_is_folded_on_the_screen(opened):
    folded = opened.locator("#versions pre")
    assert folded.bounding_box() is None or not folded.is_visible()
    opened.emulate_media(media="print")
    assert folded.is_visible()
    assert (folded.bounding_box() or {"height": 0})["height"] > 10
    assert opened.locator("nav").is_hidden()
    opened.emulate_media(media="screen")
