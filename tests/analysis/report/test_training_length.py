"""The chapter about training length: effective length with its line, ends - middle, and what was held equal."""

from typing import Any

import numpy as np
import pytest

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.report.blocks import InlinedFigure
from lcprobe.analysis.report.charts.seed_groups import architectures
from lcprobe.analysis.report.figures import all_figures, draw
from lcprobe.analysis.report.page import sections
from tests.analysis.fabricated import flat, plan, records, run, several_training_lengths, study, task

CONTEXTS = (64, 128, 256)
REACH = {"transformerpp": lambda context: context, "mamba2": lambda context: 90.0, "hybrid": lambda context: 1e6}


@pytest.fixture(scope="module")
def inputs():
    return several_training_lengths(lambda name, context: REACH[name](context), CONTEXTS, [*REACH], n=20)


@pytest.fixture(scope="module")
def results(inputs) -> Results:
    return analyse(*inputs)


def panels(results: Results, chart: str) -> dict[str, Any]:
    (figure,) = all_figures(results, [chart]).values()
    return {axes.get_title(loc="left").split("\n")[0]: axes for axes in figure.get_axes() if axes.get_visible()}


def test_every_run_has_a_point_at_its_effective_length_and_those_that_never_fall_an_arrow(results):
    for fit in results.length_fits:
        axes = panels(results, "effective_length")[fit.architecture]
        points = [float(line.get_ydata()[0]) for line in axes.get_lines() if len(line.get_xdata()) == 1]
        assert points == pytest.approx([np.log2(r.tokens) for r in fit.runs])
        arrows = [float(text.xyann[1]) for text in axes.texts]
        assert arrows == pytest.approx([np.log2(r.tokens) for r in fit.runs if r.at_least])
        assert bool(arrows) == (fit.architecture == "hybrid")


def test_the_line_is_that_of_the_fit_with_its_slope_in_the_title(results):
    for fit in results.length_fits:
        if fit.architecture == "hybrid":
            continue
        axes = panels(results, "effective_length")[fit.architecture]
        line = next(line for line in axes.get_lines() if line.get_label().startswith("fit"))
        ends = [fit.at(float(2**at)) for at in (line.get_xdata()[0], line.get_xdata()[-1])]
        assert np.exp2(line.get_ydata())[[0, -1]] == pytest.approx(ends)
        slope = axes.get_title(loc="left").split("\n")[1]
        assert slope.startswith(f"slope {fit.slope.value:.2f}".replace("-", "−"))
        assert abs(fit.slope.value - (fit.architecture == "transformerpp")) < 0.4


def test_ends_minus_middle_is_recounted_from_the_records(inputs, results):
    frame = inputs[1].to_pandas()
    frame = frame[(frame.control == "none") & frame.model.str.contains("mamba2")]
    axes = panels(results, "depth_by_length")
    for context, group in zip(CONTEXTS, architectures(results)["mamba2"], strict=True):
        by_depth = frame[frame.model.str.startswith(f"L{context}-")].pivot_table("exact", "length", "depth")
        expected = (by_depth[0.0] + by_depth[1.0]) / 2 - by_depth[0.5]
        for where, zero in (("equal length", 1), ("equal multiple", context)):
            lines = axes[f"mamba2: {where}"].get_lines()
            line = next(line for line in lines if line.get_label() == group.label)
            at = 2 ** np.round(np.asarray(line.get_xdata())) * zero  # curves are drawn side by side
            assert len(at) >= 4
            assert line.get_ydata() == pytest.approx(expected[at].to_numpy())


def test_the_chapter_comes_first_with_what_was_held_equal_and_the_verdicts(results):
    figures = [InlinedFigure(picture, "", 1, 1) for picture, _ in draw(results)]
    chapters = sections(results, figures)
    assert [chapter.id for chapter in chapters][:2] == ["training-length", "models"]
    first = chapters[0]
    text = " ".join(first.text)
    assert "Equal at all of them: training tokens" in text
    assert all(f"{name}, single: " in text for name in REACH)
    assert {f.picture.chart for f in first.figures} == {"effective_length", "length", "multiple"}
    shown = [f.picture.name for chapter in chapters for f in chapter.figures]
    assert sorted(shown) == sorted(f.picture.name for f in figures)  # each once
    fits, pairs = first.tables
    assert [row[0] for row in fits.rows] == [*REACH]
    assert len(pairs.rows) == len(results.of("training length")) > 0


def test_a_study_of_one_training_length_has_no_such_chapter():
    cells = plan(["single"], lengths=[64, 128], depths=[0.0, 1.0], n=10)
    facts = study([run("a"), run("b")], [task("single")], cells)
    one = analyse(facts, records({"a": flat(0.5), "b": flat(0.6)}, cells))
    figures = [InlinedFigure(picture, "", 1, 1) for picture, _ in draw(one)]
    chapters = {chapter.id: chapter for chapter in sections(one, figures)}
    assert "training-length" not in chapters
    assert [f.picture.chart for f in chapters["length"].figures] == ["length"]
    assert all_figures(one, ["effective_length", "depth_by_length"]) == {}
