"""The page in a real browser, headless Chromium, wide and narrow: what is drawn, chosen, sorted, printed, and that
nothing is requested, refused or clipped."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lcprobe.analysis.report.write import write_report
from tests.analysis.fabricated import flat, plan, records, run, study, task, window

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
WIDE, NARROW = 1280, 390
HOSTILE = '<script>alert(1)</script>"$'


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    formats = [("corpus", "words", "numbers"), ("words", "words", "numbers")]
    cells = plan(["single", "multikey"], formats, [64, 128, 256], [0.0, 0.5, 1.0], 20)
    metrics = [{"tokens": 1000.0 * i, "train/loss": 4 - i / 100} for i in range(50)]
    runs = [run("a", metrics=metrics), run("b"), run(HOSTILE)]
    facts = study(runs, [task("single"), task("multikey", 4)], cells)
    table = records({"a": flat(0.83), "b": window(100), HOSTILE: flat(0.4)}, cells)
    return write_report(facts, table, tmp_path_factory.mktemp("page")).html


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[WIDE, NARROW])
def opened(request, browser, page_file) -> Iterator[Any]:
    """The page at a width; in the end it has written no error, and asked for nothing but itself."""
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(page_file.as_uri())
    yield page
    assert errors == []
    assert requests == [page_file.as_uri()]
    page.close()


def draw_all(page) -> None:
    """Scroll every figure into view, also those in folds, and wait until each is drawn."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for figure in page.query_selector_all("figure:has(script.spec)"):
        figure.scroll_into_view_if_needed()
    page.locator("figure:has(script.spec):not([data-drawn])").first.wait_for(state="detached")


def test_every_chart_becomes_interactive_and_nothing_is_clipped(opened):
    draw_all(opened)
    drawn = opened.eval_on_selector_all("figure:has(script.spec)", "all => all.map(f => f.dataset.drawn)")
    assert set(drawn) == {"yes"}
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    wider = opened.eval_on_selector_all(
        ".chart, .scroll, pre, h1, h2, p, ul, dl",
        f"all => all.filter(e => e.getClientRects().length && e.getBoundingClientRect().right > {width} + 1).length",
    )
    assert wider == 0


def test_choosing_a_model_redraws_the_charts_without_the_others(opened):
    draw_all(opened)
    figure = opened.locator("figure[data-chart=length]").first
    lines = "path[aria-roledescription='line mark']"
    before = figure.locator(lines).count()
    opened.locator(".choice[aria-label=Models] button", has_text="a").first.click()
    opened.wait_for_function(
        f"""n => document.querySelector("figure[data-chart=length]").querySelectorAll("{lines}").length < n""",
        arg=before,
    )
    assert figure.locator(lines).count() == 1


def test_a_task_can_be_chosen(opened):
    opened.locator(".choice[aria-label=Tasks] button", has_text="single").click()
    shown = opened.eval_on_selector_all("figure[data-task]:not([hidden])", "all => all.map(f => f.dataset.task)")
    assert set(shown) <= {"single", ""}


def test_tables_sort_by_number_and_search_by_words(opened):
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    scroll = opened.locator("#cells .scroll").first
    header = scroll.locator("th", has_text="k/n").first
    column = header.evaluate("th => th.cellIndex")
    read = f"table => [...table.tBodies[0].rows].map(r => parseInt(r.cells[{column}].textContent))"
    values = scroll.locator("table").evaluate(read)
    header.locator("button").click()
    assert scroll.locator("table").evaluate(read) == sorted(values)
    opened.locator("#cells .search input").first.fill("multikey 256")
    rows = scroll.locator("tbody tr:not([hidden])").all_inner_texts()
    assert rows
    assert all("multikey" in row and "256" in row for row in rows)


def test_a_point_tells_its_counts(opened):
    draw_all(opened)
    point = opened.locator("figure[data-chart=length] path[aria-roledescription='point']").first
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    told = opened.locator("#vg-tooltip-element.visible").inner_text()
    assert "95 % interval" in told
    assert "/" in told


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_of_charts_has_the_text_colour_of_the_page(browser, page_file, scheme):
    page = browser.new_page(color_scheme=scheme)
    page.goto(page_file.as_uri())
    draw_all(page)
    colours = page.eval_on_selector_all(
        "figure[data-chart=length] text", "all => [...new Set(all.map(t => getComputedStyle(t).fill))]"
    )
    ink = page.evaluate("getComputedStyle(document.body).color")
    page.close()
    assert ink in colours


def test_print_shows_what_is_folded_on_the_screen(browser, page_file):
    page = browser.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("details:not([open])").count() > 0
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0
    page.close()


def test_tables_are_saved_from_the_page_without_a_request(opened, page_file):
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    links = opened.locator("#downloads a")
    assert links.count() > 3
    for name in ("cells.csv", "models.csv"):
        with opened.expect_download() as saved:
            links.filter(has_text=name).click()
        assert saved.value.suggested_filename == name
        assert Path(saved.value.path()).read_bytes() == (page_file.parent / "tables" / name).read_bytes()
