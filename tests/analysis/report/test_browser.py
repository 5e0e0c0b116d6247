"""The page in a real browser, headless Chromium, wide and narrow: what is drawn, chosen, sorted, printed, and that
nothing is requested, refused or clipped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lcprobe.analysis.episodes import Piece, ShownEpisode, ShownEpisodes, choose_episodes
from lcprobe.analysis.report.write import write_report
from tests.analysis.fabricated import flat, plan, records, run, study, task, window

WIDE, NARROW = 1280, 390
HOSTILE = '<script>alert(1)</script>"$'


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    formats = [("corpus", "words", "numbers"), ("words", "words", "numbers")]
    cells = plan(["single", "multikey"], formats, [64, 128, 256], [0.0, 0.5, 1.0], 20)
    metrics = [{"tokens": 1000.0 * i, "train/loss": 4 - i / 100} for i in range(50)]
    runs = [run("a", metrics=metrics), run("b-s0", group="b"), run(HOSTILE)]
    facts = study(runs, [task("single"), task("multikey", 4)], cells)
    table = records({"a": flat(0.83), "b-s0": window(100), HOSTILE: flat(0.4)}, cells)
    chosen = choose_episodes(table, runs, cells)
    episodes = ShownEpisodes(tuple(ShownEpisode(one.row, one.why, (Piece("a prompt"),), 0) for one in chosen))
    return write_report(facts, table, tmp_path_factory.mktemp("page"), episodes=episodes).html


@pytest.fixture
def width() -> int:
    return WIDE


@pytest.fixture
def opened(width, new_page, page_file) -> Iterator[Any]:
    """The page at a width; in the end it has written no error, and asked for nothing but itself."""
    page = new_page(viewport={"width": width, "height": 900})
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(page_file.as_uri())
    yield page
    page.close()
    assert errors == []
    assert requests == [page_file.as_uri()]


def draw_all(page) -> None:
    """Scroll every figure into view, also those in folds, and wait until each is drawn."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for figure in page.query_selector_all("figure:has(script.spec)"):
        for _ in range(10):
            figure.evaluate("f => f.scrollIntoView()")
            page.screenshot()  # makes a frame, which Chromium alone may not do for a while
            if figure.evaluate(DRAWN):
                break
        else:
            pytest.fail(f"{figure.get_attribute('id')} is not drawn")


DRAWN = """async figure => {
  for (let i = 0; i < 200 && !figure.dataset.drawn; i++) await new Promise(later => setTimeout(later, 50));
  return figure.dataset.drawn !== undefined;
}"""
"""Whether a chart is drawn within ten seconds, asked by the clock and not by frames."""


CUT = """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const own = text.getBoundingClientRect();
    return own.width && (own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1
                         || own.bottom > box.bottom + 1);
  }).map(text => `${svg.closest("figure").dataset.chart}: ${text.textContent}`);
})"""
"""Texts of charts that are partly outside of their SVG, which the browser cuts."""


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_chart_becomes_interactive_and_nothing_is_clipped(opened, width):
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert opened.evaluate(CUT) == [], "as written"
    draw_all(opened)
    assert opened.evaluate(CUT) == [], "as drawn"
    drawn = opened.eval_on_selector_all("figure:has(script.spec)", "all => all.map(f => f.dataset.drawn)")
    assert set(drawn) == {"yes"}
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    wider = opened.eval_on_selector_all(
        ".chart, .scroll, pre, h1, h2, p, ul, dl",
        f"all => all.filter(e => e.getClientRects().length && e.getBoundingClientRect().right > {width} + 1).length",
    )
    assert wider == 0


@pytest.mark.parametrize("width", [NARROW])
def test_a_table_that_scrolls_sideways_fades_at_the_right_until_its_end(opened):
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide = opened.eval_on_selector_all(".scroll", "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length")
    assert wide > 0
    faded = """n => [...document.querySelectorAll(".scroll")].filter(
      e => e.clientWidth && getComputedStyle(e).maskImage !== "none").length === n"""
    opened.wait_for_function(faded, arg=wide, polling=100)
    opened.eval_on_selector_all(".scroll", "all => all.forEach(e => e.scrollTo(e.scrollWidth, 0))")
    opened.wait_for_function(faded, arg=0, polling=100)


@pytest.mark.parametrize("width", [NARROW])
def test_choosing_a_model_redraws_the_charts_without_the_others(opened):
    draw_all(opened)
    figure = opened.locator("figure[data-chart=length]").first
    lines = "path[aria-roledescription='line mark']"
    before = figure.locator(lines).count()
    opened.locator(".choice[aria-label=Models] button", has_text="a").first.click()
    opened.wait_for_function(
        f"""n => document.querySelector("figure[data-chart=length]").querySelectorAll("{lines}").length < n""",
        arg=before,
        polling=100,
    )
    assert figure.locator(lines).count() == 1


def test_choosing_models_hides_the_others_in_the_headline_tables(opened):
    rows = opened.locator("#headline-multikey tbody tr:not([hidden]) th")
    names = [text.split("\n")[0] for text in rows.all_inner_texts()]
    button = opened.locator(".choice[aria-label=Models] button").filter(has_text=HOSTILE)
    button.click()
    assert [text.split("\n")[0] for text in rows.all_inner_texts()] == [HOSTILE]
    button.click()
    assert [text.split("\n")[0] for text in rows.all_inner_texts()] == names


def test_choosing_models_and_tasks_reaches_episodes_and_tables(opened):
    """Runs by their model, pairs by both; with a search beside."""
    choice = "[aria-label={}] button"
    cells, pairs = ({"selector": f"#{i} .scroll tbody tr"} for i in ("cells", "models-compared"))
    first = "(all, at) => [...new Set(all.filter(r => !r.hidden).map(r => r.cells[at].textContent))]"

    def told(table, column: int = 0) -> list[str]:
        return opened.eval_on_selector_all(table["selector"], first, column)

    def episodes() -> set[str]:
        shown = opened.eval_on_selector_all(
            "details.model", "all => all.filter(d => !d.hidden).map(d => d.textContent)"
        )
        return {text.split(":")[0] for text in shown}

    assert told(cells) == ["a", "b-s0", HOSTILE]
    assert {"a", "b-s0"} <= episodes()
    names = opened.locator(choice.format("Models"))
    names.filter(has_text="b").first.click()
    assert told(cells) == ["b-s0"]
    assert episodes() == {"b-s0"}
    assert told(pairs) == ["a − b", f"b − {HOSTILE}"]
    names.first.click()
    assert told(cells) == ["a", "b-s0"]
    assert told(pairs) == ["a − b"]
    opened.locator(choice.format("Tasks"), has_text="single").click()
    assert told(cells, 1) == ["single"]
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    opened.locator("#cells .search input").first.fill("b-s0 256")
    assert told(cells) == ["b-s0"]
    count = opened.locator("#cells .search output").first.inner_text()
    assert int(count.split()[0]) == 2 * 3 < int(count.split()[2])


LANDED = """id => {
  const bar = document.getElementById("choices"), top = document.getElementById(id).getBoundingClientRect().top;
  return top - (getComputedStyle(bar).position === "sticky" ? bar.getBoundingClientRect().bottom : 0);
}"""
"""Pixels between the bar, or the top of the window, and what a link leads to."""
SEEN = """() => ![...document.querySelectorAll("figure:has(script.spec):not([data-drawn])")].some(f => {
  const box = f.getBoundingClientRect();
  return f.checkVisibility() && box.bottom > -150 && box.top < innerHeight + 150;
})"""
"""Whether every chart near the window is drawn."""


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_link_leads_to_its_heading_below_the_bar_whatever_is_drawn_meanwhile(new_page, page_file, width):
    page = new_page(viewport={"width": width, "height": 500})
    for link in ("nav a[href*=pictures] >> nth=-1", "nav a[href='#episodes']", "a.see >> nth=-1", ""):
        page.goto("about:blank")
        page.goto(page_file.as_uri() + ("" if link else "#pictures-single-length"))
        target = page.locator(link).get_attribute("href")[1:] if link else "pictures-single-length"
        if link:
            page.locator(link).evaluate("a => a.click()")
        page.wait_for_timeout(300)
        page.wait_for_function(SEEN, polling=100)
        page.wait_for_timeout(100)
        assert 0 <= page.evaluate(LANDED, target) <= 48, target
    page.close()


def test_a_task_can_be_chosen(opened):
    opened.locator(".choice[aria-label=Tasks] button", has_text="single").click()
    shown = opened.eval_on_selector_all("figure[data-task]:not([hidden])", "all => all.map(f => f.dataset.task)")
    assert set(shown) <= {"single", ""}


@pytest.mark.parametrize("width", [NARROW])
def test_tables_sort_by_number_and_search_by_words(opened):
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    scroll = opened.locator("#cells .scroll").first
    header = scroll.locator("th", has_text="k/n").first
    column = header.evaluate("th => th.cellIndex")
    read = f"table => [...table.tBodies[0].rows].map(r => parseInt(r.cells[{column}].textContent))"
    values = scroll.locator("table").evaluate(read)
    header.locator("[role=button]").click()
    assert scroll.locator("table").evaluate(read) == sorted(values)
    header.locator("[role=button]").press("Enter")
    assert scroll.locator("table").evaluate(read) == sorted(values, reverse=True)
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
def test_text_of_charts_has_the_text_colour_of_the_page(new_page, page_file, scheme):
    page = new_page(color_scheme=scheme)
    page.goto(page_file.as_uri())
    draw_all(page)
    colours = page.eval_on_selector_all(
        "figure[data-chart=length] text", "all => [...new Set(all.map(t => getComputedStyle(t).fill))]"
    )
    ink = page.evaluate("getComputedStyle(document.body).color")
    page.close()
    assert ink in colours


def test_print_shows_what_is_folded_on_the_screen(new_page, page_file):
    page = new_page()
    page.goto(page_file.as_uri())
    assert page.locator("details:not([open])").count() > 0
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0
    page.close()


def test_a_table_has_the_names_of_its_columns_on_every_page_of_paper(new_page, page_file, tmp_path):
    pypdf = pytest.importorskip("pypdf", reason="pypdf reads what is printed")
    page = new_page()
    page.goto(page_file.as_uri())
    page.evaluate(
        """() => {
          const cells = document.querySelector("#cells .scroll");
          document.body.replaceChildren(cells);
        }"""
    )
    page.pdf(path=tmp_path / "cells.pdf", format="A4")
    page.close()
    pages = [sheet.extract_text() for sheet in pypdf.PdfReader(tmp_path / "cells.pdf").pages]
    assert len(pages) > 2
    assert all("token accuracy" in " ".join(text.split()) for text in pages)


def test_tables_are_saved_from_the_page_without_a_request(opened, page_file):
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    links = opened.locator("#downloads a")
    assert links.count() > 3
    for name in ("cells.csv", "models.csv"):
        with opened.expect_download() as saved:
            links.filter(has_text=name).click()
        assert saved.value.suggested_filename == name
        assert Path(saved.value.path()).read_bytes() == (page_file.parent / "tables" / name).read_bytes()
