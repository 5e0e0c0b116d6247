"""Figures of a study with several training lengths: panels by architecture, colours by training length, seeds together."""

from collections import Counter
from dataclasses import replace

import pytest

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.report.answer.headline import headline_tables
from lcprobe.analysis.report.charts.distance import bins_of
from lcprobe.analysis.report.charts.grammar import DASHED, SOLID
from lcprobe.analysis.report.charts.seed_groups import architectures, has_several_lengths, length_styles
from lcprobe.analysis.report.figures import all_figures, draw
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.records import CONTEXT_SCHEMA, table_of
from lcprobe.tasks.episode import Formats
from tests.analysis.fabricated import (
    FORMAT,
    flat,
    plan,
    records,
    run,
    several_training_lengths,
    study,
    task,
    text_records,
)
from tests.analysis.report.charts_read import layers, panels_of, rows_of

CONTEXTS = (64, 128, 256)


FORMATS = (FORMAT, ("words", "words", "numbers"))


def planted(seeds=(0, 1), contexts=CONTEXTS, n=20, **changes):
    return several_training_lengths(
        lambda name, context: context if name == "mamba2" else 90.0, contexts, seeds=seeds, n=n, **changes
    )


@pytest.fixture(scope="module")
def inputs():
    return planted()


@pytest.fixture(scope="module")
def results(inputs) -> Results:
    return analyse(*inputs)


def one_length() -> Results:
    cells = plan(["single"], lengths=[64, 128], depths=[0.0, 1.0], n=10)
    runs = [run(f"a-s{seed}", group="a", seed=seed) for seed in (0, 1)]
    return analyse(study(runs, [task("single")], cells), records({r.name: flat(0.5) for r in runs}, cells))


def curve(chart, panel: str, length: int) -> dict[float, float]:
    """The mean curve of a training length, of one architecture."""
    own = [row for row in rows_of(chart, "point", panel) if row["series"] == f"trained at {length}"]
    return {row["at"]: row["value"] for row in own}


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
    lines = rows_of(figure, "line")
    assert {row["model"] for row in lines} == {"a"}
    assert {row["seed"] for row in lines if "seed" in row} == {"a-s0", "a-s1"}


@pytest.mark.parametrize("chart", ["length", "multiple"])
def test_curves_are_means_over_seeds_recounted_from_the_records(inputs, results, chart):
    frame = inputs[1].to_pandas()
    frame = frame[frame.control == "none"]
    (figure,) = all_figures(results, [chart]).values()
    assert panels_of(figure) == [*architectures(results)]
    for name in architectures(results):
        for context in CONTEXTS:
            own = frame[frame.model.str.startswith(f"L{context}-{name}-")]
            expected = own.groupby("length").exact.mean()
            zero = 1 if chart == "length" else context
            assert curve(figure, name, context) == pytest.approx({x / zero: y for x, y in expected.items()}, abs=1e-4)


def test_a_reach_in_proportion_collapses_over_multiples_and_a_fixed_one_over_tokens(results):
    """At twice the training length: equal over training lengths iff reach is in proportion to it."""
    (by_tokens,), (by_multiple,) = (all_figures(results, [chart]).values() for chart in ("length", "multiple"))
    fixed, proportional = "transformerpp", "mamba2"
    spreads = {}
    for panel in (fixed, proportional):
        for name, figure, at in (("tokens", by_tokens, 256), ("multiple", by_multiple, 2)):
            values = [curve(figure, panel, context)[at] for context in CONTEXTS]
            spreads[panel, name] = max(values) - min(values)
    assert spreads[fixed, "tokens"] < spreads[fixed, "multiple"]
    assert spreads[proportional, "multiple"] < spreads[proportional, "tokens"]


def test_training_lengths_are_marked_in_the_colour_of_their_curve(results):
    (figure,) = all_figures(results, ["length"]).values()
    styles = length_styles(results)
    assert len({style.colour for style in styles.values()}) == len({s.symbol for s in styles.values()}) == 3
    for name in architectures(results):
        marks = {row["at"]: row["ink"] for row in rows_of(figure, "rule", name)}
        assert marks == {length: styles[length].colour for length in CONTEXTS}


def test_captions_say_what_is_drawn(results):
    for picture, _ in draw(results, ["length", "multiple"]):
        assert "mean over training seeds" in picture.caption
        assert picture.caption.endswith(".")


def test_the_number_of_figures_does_not_grow_with_the_seeds():
    metrics = [{"tokens": 1000.0 * i, "train/loss": 4 - i / 100, "probe/single@64": i / 100} for i in range(9)]
    biases = [{"layer": 0, "head": 0, "encoding": "ALiBi", "distance": d, "bias": -d} for d in (0, 9)]
    names = []
    for seeds in ((0,), (0, 1)):
        few = {"multiples": [1, 2], "depths": [0.0, 0.5], "formats": FORMATS}
        facts, table = planted(seeds, CONTEXTS[:2], 10, **few, metrics=metrics, biases=biases)
        text = [row for r in facts.runs for row in text_records(r.name, n=5)]
        names.append(list(all_figures(analyse(facts, table, table_of(text, CONTEXT_SCHEMA)))))
    assert names[0] == names[1]
    per_chart = Counter(name.split("_")[0] for name in names[0])
    assert per_chart["heatmap"] == 2 * 2  # architectures, formats
    assert per_chart["formats"] == 2
    assert per_chart["bias"] == 2 * 2  # architectures, training lengths


def test_heatmaps_are_means_over_seeds_and_marked_at_each_training_length(inputs, results):
    frame = inputs[1].to_pandas()
    frame = frame[(frame.control == "none") & frame.model.str.contains("mamba2")]
    figure = all_figures(results, ["heatmap"])["heatmap_single_corpus-words-numbers_mamba2"]
    assert panels_of(figure) == [f"trained at {context}" for context in CONTEXTS]
    for context in CONTEXTS:
        own = frame[frame.model.str.startswith(f"L{context}-")]
        expected = own.groupby(["depth", "length"]).exact.mean()
        cells = rows_of(figure, "rect", f"trained at {context}")
        shown = {(row["row"], row["column"]): (row["value"], row["shown"]) for row in cells}
        strata = dict(zip((0.0, 0.5, 1.0), dict.fromkeys(row["row"] for row in cells), strict=True))
        for (depth, length), value in expected.items():
            own_value, text = shown[strata[depth], f"{length:,}"]
            assert own_value == pytest.approx(value, abs=1e-4)
            assert float(text) == pytest.approx(value, abs=0.0051)
        (edge,) = rows_of(figure, "rule", f"trained at {context}")
        assert edge["column"] == str(context)  # the line is at the end of its cells


def test_profiles_are_at_each_training_length_and_at_the_longest(inputs, results):
    frame = inputs[1].to_pandas()
    frame = frame[(frame.control == "none") & frame.model.str.contains("mamba2")]
    figures = all_figures(results, ["depth"])
    for suffix, length_at in (("own", {c: c for c in CONTEXTS}), ("256", dict.fromkeys(CONTEXTS, 256))):
        figure = figures[f"depth_single_corpus-words-numbers_{suffix}"]
        for context in CONTEXTS:
            own = frame[frame.model.str.startswith(f"L{context}-") & (frame.length == length_at[context])]
            expected = own.groupby("depth").exact.mean().to_dict()
            assert curve(figure, "mamba2", context) == pytest.approx(expected, abs=1e-4)


def test_bins_of_distance_hold_every_trial_of_all_seeds(inputs, results):
    frame = inputs[1].to_pandas()
    group = architectures(results)["mamba2"][0]
    bins = bins_of(results, [PanelKey(r.name, "single", Formats(*FORMAT)) for r in group.runs])
    own = frame[(frame.control == "none") & frame.model.isin([r.name for r in group.runs])]
    assert sum(b.estimate.n for b in bins) == len(own)
    assert sum(b.estimate.k for b in bins) == own.exact.sum()
    near = own[own.distance.between(bins[0].low, bins[0].high)]
    assert bins[0].estimate.value == pytest.approx(near.exact.mean())
    assert bins[0].estimate.samples == near["index"].nunique()


def test_continued_training_has_a_line_of_its_own():
    facts, table = planted((0,))
    runs = [replace(r, started_from="L64") if r.context_length == 256 else r for r in facts.runs]
    (figure,) = all_figures(analyse(replace(facts, runs=runs), table), ["length"]).values()
    dashes = {
        row["series"]: layer["mark"]["strokeDash"]
        for layer in layers(figure)
        if "strokeDash" in layer["mark"]
        for row in layer["rows"]
        if "series" in row
    }
    assert (dashes["trained at 128"], dashes["continued at 256"]) == (SOLID, DASHED)


def test_the_headline_has_a_row_per_group_with_its_own_training_length(inputs, results):
    (table,) = [t for t in headline_tables(results) if t.task == "single"]
    assert [row.model for row in table.rows] == [f"L{x}-{name}" for name in architectures(results) for x in CONTEXTS]
    frame = inputs[1].to_pandas()
    own = frame[(frame.control == "none") & frame.model.str.startswith("L128-mamba2-") & (frame.task == "single")]
    row = next(row for row in table.rows if row.model == "L128-mamba2")
    values = {s.length: s.estimate.value for s in row.scores if isinstance(s.estimate, Proportion)}
    assert values == pytest.approx(own.groupby("length").exact.mean().to_dict())
    assert [s.length for s in row.scores if s.trained] == [128]
    assert table.context_length is None
