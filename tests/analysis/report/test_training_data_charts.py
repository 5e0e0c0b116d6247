"""Charts of what training asked and could see: each distribution once, beside that of the probe."""

from dataclasses import replace

import numpy as np
import pytest

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.inputs import TrainingData
from lcprobe.analysis.report.figures import all_figures, draw
from tests.analysis.fabricated import several_training_lengths
from tests.analysis.report.charts_read import panels_of, rows_of

CONTEXTS = (64, 128)


def data_of(context: int, share: float = 0.9) -> TrainingData:
    def up_to(top: float) -> tuple[float, ...]:
        return tuple(np.linspace(4, top, 21).tolist())

    return TrainingData(up_to(share * context), up_to(context), up_to(context - 1), 0.5, "uniform")


@pytest.fixture(scope="module")
def inputs():
    facts, table = several_training_lengths(lambda name, context: 50.0, CONTEXTS, n=10, multiples=(1, 2))
    runs = [replace(run, training_data=data_of(run.context_length)) for run in facts.runs]
    return replace(facts, runs=runs), table


@pytest.fixture(scope="module")
def results(inputs) -> Results:
    return analyse(*inputs)


def line(chart, panel: str, series: str) -> tuple[list[float], list[float]]:
    rows = [row for row in rows_of(chart, "line", panel) if row.get("series") == series]
    return [row["at"] for row in rows], [row["value"] for row in rows]


def test_equal_data_of_several_models_are_drawn_once(results):
    figures = all_figures(results, ["training_data"])
    needles, text = figures["training_data_needles"], figures["training_data_text"]
    assert panels_of(needles) == ["trained at 64", "trained at 128"]
    for context in CONTEXTS:
        at, shares = line(needles, f"trained at {context}", "training")
        assert at == pytest.approx(data_of(context).needle_distances, rel=1e-4)
        assert shares == pytest.approx(np.linspace(0, 1, 21))
    for panel, name in zip(panels_of(text), ("visible", "visible_before"), strict=True):
        at, _ = line(text, panel, "trained at 128")
        assert at == pytest.approx(data_of(128).__dict__[name], rel=1e-4)


def test_the_probe_beside_it_is_that_of_the_records(inputs, results):
    frame = inputs[1].to_pandas()
    frame = frame[(frame.control == "none") & frame.model.str.startswith("L64-mamba2-s0")]
    chart = all_figures(results, ["training_data"])["training_data_needles"]
    for where, own in (("probe at the training length", frame[frame.length == 64]), ("probe at all lengths", frame)):
        at, shares = line(chart, "trained at 64", where)
        middle = len(at) // 2
        assert (shares[0], shares[middle], shares[-1]) == (0, 0.5, 1)
        assert [at[0], at[middle], at[-1]] == pytest.approx(own.distance.quantile([0, 0.5, 1], "lower"), abs=1)


def test_models_with_data_of_their_own_have_panels_of_their_own(inputs):
    facts, table = inputs
    runs = [replace(r, training_data=data_of(64, 0.3)) if r.group == "L64-mamba2" else r for r in facts.runs]
    figure = all_figures(analyse(replace(facts, runs=runs), table), ["training_data"])["training_data_needles"]
    assert panels_of(figure) == ["trained at 64: transformerpp", "trained at 64: mamba2", "trained at 128"]


def test_nothing_is_drawn_of_what_was_not_recorded(inputs):
    facts, table = inputs
    no_episodes = [replace(run, training_data=replace(data_of(64), needle_distances=())) for run in facts.runs]
    names = [picture.name for picture, _ in draw(analyse(replace(facts, runs=no_episodes), table), ["training_data"])]
    assert names == ["training_data_text"]
    unrecorded = [replace(run, training_data=None) for run in facts.runs]
    assert all_figures(analyse(replace(facts, runs=unrecorded), table), ["training_data"]) == {}
