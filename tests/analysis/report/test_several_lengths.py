"""Figures of a study with several training lengths: panels by architecture, colours by training length, seeds together."""

import numpy as np
import pytest

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.report.charts.seed_groups import architectures, has_several_lengths, length_styles
from lcprobe.analysis.report.figures import all_figures, draw
from tests.analysis.fabricated import flat, plan, records, run, several_training_lengths, study, task

CONTEXTS = (64, 128, 256)


@pytest.fixture(scope="module")
def inputs():
    return several_training_lengths(lambda name, context: context if name == "mamba2" else 90.0, CONTEXTS, n=20)


@pytest.fixture(scope="module")
def results(inputs) -> Results:
    return analyse(*inputs)


def one_length() -> Results:
    cells = plan(["single"], lengths=[64, 128], depths=[0.0, 1.0], n=10)
    runs = [run(f"a-s{seed}", group="a", seed=seed) for seed in (0, 1)]
    return analyse(study(runs, [task("single")], cells), records({r.name: flat(0.5) for r in runs}, cells))


def curve(axes, length: int) -> dict[float, float]:
    line = next(line for line in axes.get_lines() if line.get_label() == f"trained at {length}")
    return dict(zip(np.exp2(line.get_xdata()).round(6).tolist(), np.asarray(line.get_ydata()).tolist(), strict=True))


def test_groups_are_those_of_the_study_by_architecture_and_ascending_length(results):
    families = architectures(results)
    assert [*families] == ["transformerpp", "mamba2"]
    for name, groups in families.items():
        assert [group.name for group in groups] == [f"L{x}-{name}" for x in CONTEXTS]
        assert all([run.seed for run in group.runs] == [0, 1] for group in groups)


def test_a_study_of_one_training_length_has_its_own_figures():
    results = one_length()
    assert not has_several_lengths(results)
    assert all_figures(results, ["multiple"]) == {}
    (figure,) = all_figures(results, ["length"]).values()
    assert [line.get_label() for line in figure.get_axes()[0].get_lines()][:2] == ["a-s0", "a-s1"]


@pytest.mark.parametrize("chart", ["length", "multiple"])
def test_curves_are_means_over_seeds_recounted_from_the_records(inputs, results, chart):
    frame = inputs[1].to_pandas()
    frame = frame[frame.control == "none"]
    (figure,) = all_figures(results, [chart]).values()
    for axes, name in zip(figure.get_axes(), architectures(results), strict=True):
        assert axes.get_title(loc="left") == name
        for context in CONTEXTS:
            own = frame[frame.model.str.startswith(f"L{context}-{name}-")]
            expected = own.groupby("length").exact.mean()
            zero = 1 if chart == "length" else context
            assert curve(axes, context) == pytest.approx({x / zero: y for x, y in expected.items()})


def test_a_reach_in_proportion_collapses_over_multiples_and_a_fixed_one_over_tokens(results):
    """At twice the training length: equal over training lengths iff reach is in proportion to it."""
    (by_tokens,), (by_multiple,) = (all_figures(results, [chart]).values() for chart in ("length", "multiple"))
    fixed, proportional = 0, 1
    spreads = {}
    for panel in (fixed, proportional):
        for name, figure, at in (("tokens", by_tokens, 256), ("multiple", by_multiple, 2)):
            values = [curve(figure.get_axes()[panel], context)[at] for context in CONTEXTS]
            spreads[panel, name] = max(values) - min(values)
    assert spreads[fixed, "tokens"] < spreads[fixed, "multiple"]
    assert spreads[proportional, "multiple"] < spreads[proportional, "tokens"]


def test_training_lengths_are_marked_in_the_colour_of_their_curve(results):
    (figure,) = all_figures(results, ["length"]).values()
    styles = length_styles(results)
    assert len({style.colour for style in styles.values()}) == len({s.marker for s in styles.values()}) == 3
    for axes in figure.get_axes():
        marks = {line.get_xdata()[0]: line.get_color() for line in axes.get_lines() if line.get_linestyle() == "--"}
        assert marks == {np.log2(length): styles[length].colour for length in CONTEXTS}


def test_captions_say_what_is_drawn(results):
    for picture, _ in draw(results, ["length", "multiple"]):
        assert "mean over training seeds" in picture.caption
        assert picture.caption.endswith(".")
