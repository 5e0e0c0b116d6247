"""Figures as matplotlib objects: the same ones that the report writes, chosen by chart, with captions."""

import pytest
from matplotlib.figure import Figure

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.inputs import TrainingData
from lcprobe.analysis.report.figures import CHARTS, all_figures, draw
from lcprobe.analysis.report.write import write_report
from lcprobe.records import CONTEXT_SCHEMA, table_of
from tests.analysis.fabricated import (
    flat,
    plan,
    records,
    run,
    several_training_lengths,
    study,
    task,
    text_records,
)

CELLS = plan(["single"], lengths=[64, 128, 256], depths=[0.0, 0.5, 1.0], n=20)
FORMATS = plan(["single"], [("words", "words", "numbers")], lengths=[64, 128, 256], depths=[0.0, 0.5, 1.0], n=20)
BIASES = [
    {"layer": 0, "head": h, "encoding": "ALiBi", "distance": d, "bias": -d / 2**h} for h in (0, 1) for d in (0, 9)
]
METRICS = [{"tokens": 1000.0 * i, "train/loss": 4 - i / 100, "probe/single@128": i / 100} for i in range(9)]


@pytest.fixture(scope="module")
def inputs():
    cells = CELLS + FORMATS
    facts = study([run("a", biases=BIASES, metrics=METRICS), run("b")], [task("single")], cells)
    return facts, records({"a": flat(0.8), "b": flat(0.4)}, cells), table_of(text_records("a"), CONTEXT_SCHEMA)


@pytest.fixture(scope="module")
def results(inputs) -> Results:
    return analyse(*inputs)


def test_all_figures_are_those_of_the_report(inputs, results, tmp_path):
    study_facts, table, context = inputs
    figures = all_figures(results)
    assert figures.keys() == write_report(study_facts, table, tmp_path, context=context).figures.keys()
    assert all(isinstance(figure, Figure) and figure.get_axes() for figure in figures.values())


@pytest.fixture(scope="module")
def several() -> Results:
    data = TrainingData(tuple(range(21)), tuple(range(1, 22)), tuple(range(21)))
    return analyse(*several_training_lengths(lambda name, context: context, n=10, training_data=data))


@pytest.mark.parametrize("chart", CHARTS)
def test_each_chart_is_drawn_under_its_own_name_with_a_caption(results, several, chart):
    pictures = [picture for data in (results, several) for picture, _ in draw(data, [chart])]
    assert pictures
    assert {picture.chart for picture in pictures} == {chart}
    assert all(picture.caption.endswith(".") for picture in pictures)


def test_charts_without_data_draw_nothing():
    facts = study([run("a")], [task("single")], CELLS)
    bare = analyse(facts, records({"a": flat(0.5)}, CELLS))
    assert all_figures(bare, ["context", "bias", "training", "formats"]) == {}


def test_an_unknown_chart_is_refused(results):
    with pytest.raises(KeyError, match="pie"):
        all_figures(results, ["pie"])


@pytest.mark.parametrize("chart", ["length", "distance", "context", "bias"])
def test_axes_in_tokens_have_the_data_where_their_ticks_are(results, chart):
    """Ticks such as 128 are at log2(128): data on the raw scale would be far to the right of all of them."""
    for name, figure in all_figures(results, [chart]).items():
        axes = figure.get_axes()[0]
        ticks = dict(zip(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()], strict=True))
        assert all(2**at == int(text.replace(",", "")) for at, text in ticks.items()), name
        right = max(
            max(line.get_xdata()) for line in axes.get_lines() if len(line.get_xdata()) > 2 or chart == "bias"
        )
        assert right <= max(ticks) + 1.5, name
