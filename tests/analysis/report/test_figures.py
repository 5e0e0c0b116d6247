"""Figures as altair charts: the same ones that the report writes, chosen by chart, with captions; what they show."""

import re
from xml.etree import ElementTree

import altair
import numpy as np
import pytest

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.inputs import TrainingData
from lcprobe.analysis.report.charts.distance import chosen_lengths
from lcprobe.analysis.report.charts.render import render, render_spec
from lcprobe.analysis.report.charts.seed_groups import seed_groups
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
from tests.analysis.report.charts_read import layers, panels_of, rows_of

NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
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


def test_all_figures_are_those_of_the_report(inputs, results, tmp_path, no_pictures):
    study_facts, table, context = inputs
    figures = all_figures(results)
    assert figures.keys() == write_report(study_facts, table, tmp_path, context=context).figures.keys()
    assert all(isinstance(figure, altair.TopLevelMixin) and panels_of(figure) for figure in figures.values())


@pytest.fixture(scope="module")
def several() -> Results:
    data = TrainingData(tuple(range(21)), tuple(range(1, 22)), tuple(range(21)))
    return analyse(*several_training_lengths(lambda name, context: context, n=10, training_data=data))


@pytest.mark.parametrize("chart", CHARTS)
def test_every_chart_has_its_own_name_and_a_caption_is_valid_and_offers_the_models_that_its_layers_are_filtered_by(
    results, several, chart
):
    """Writing a report does not validate: every chart is held against the schema here."""
    drawn = [pair for data in (results, several) for pair in draw(data, [chart])]
    assert {picture.chart for picture, _ in drawn} == {chart}
    for picture, figure in drawn:
        assert picture.caption.endswith(".")
        offered = [p["value"] for p in figure.to_dict(validate=True).get("params", ()) if p["name"] == "shown"]
        filtered = [layer for layer in layers(figure) if "shown" in str(layer.get("transform"))]
        assert bool(filtered) == bool(offered), picture.name
        assert all(row["model"] in offered[0] for layer in filtered for row in layer["rows"]), picture.name


def test_charts_without_data_draw_nothing():
    facts = study([run("a")], [task("single")], CELLS)
    bare = analyse(facts, records({"a": flat(0.5)}, CELLS))
    assert all_figures(bare, ["context", "bias", "training", "formats"]) == {}


def test_an_unknown_chart_is_refused(results):
    with pytest.raises(KeyError, match="pie"):
        all_figures(results, ["pie"])


@pytest.mark.parametrize("chart", ["length", "distance", "context", "bias"])
def test_axes_in_tokens_hold_their_data_and_their_ticks(results, chart):
    figures = all_figures(results, [chart])
    assert figures
    for figure in figures.values():
        for layer in layers(figure):
            x = layer["encoding"]["x"]
            if "scale" in x:
                low, high = x["scale"]["domain"]
                at = [row[x["field"]] for row in layer["rows"]]
                assert x["scale"]["type"] == "log"
                assert all(low < value < high for value in [*at, *x["axis"]["values"]])
                assert len(x["axis"]["values"]) > 1 or len({*at}) == 1


def test_profiles_are_at_the_training_length_and_where_places_are_found_or_depth_changes_most():
    cells = plan(["single"], lengths=[64, 128, 256, 512, 1024], depths=[0.0, 0.5, 1.0], n=60)

    def late(*lengths, early=0.3):
        """At these lengths only the last place is kept."""
        at = lambda c: np.isin(c["length"], lengths) & (c["depth"] < 0.9)  # noqa: E731
        return lambda c: np.where(at(c), early, 0.98)

    def drawn(**behaviours):
        facts = study([run(name) for name in behaviours], [task("single")], cells)
        pairs = draw(analyse(facts, records(behaviours, cells)), ["depth"])
        return [
            ({row["length"] for row in rows_of(figure, "line")}, bool(picture.folded)) for picture, figure in pairs
        ]

    assert drawn(a=late(512, 1024), b=flat(0.98)) == [({1024}, False), ({512}, False), ({128}, True)]
    assert drawn(a=flat(0.98), b=late(512)) == [({512}, False), ({128}, True)], "of any model"
    assert drawn(a=late(128, 256, 512, 1024)) == [({1024}, False), ({512}, False), ({128}, False)]
    assert drawn(a=late(256, early=0.85)) == [({256}, True), ({128}, True)], "nothing found: where depth changes most"
    assert drawn(a=flat(1.0))[-1] == ({128}, True)


def test_lengths_where_nothing_falls_have_no_panel_of_distances_unless_none_falls():
    cells = plan(["single"], lengths=[64, 128, 256], depths=[0.0, 0.5, 1.0], n=20)

    def panels_of(behaviour):
        results = analyse(study([run("a")], [task("single")], cells), records({"a": behaviour}, cells))
        ((picture, figure),) = draw(results, ["distance"])
        return len(figure.to_dict()["concat"]), picture.caption

    n, caption = panels_of(lambda c: np.where(c["length"] <= 128, 1.0, 0.3))
    assert (n, "Not drawn: 2 lengths at which every point is 1.00." in caption) == (1, True)
    assert panels_of(lambda c: np.where(c["length"] <= 64, 1.0, 0.3))[0] == 2
    n, caption = panels_of(lambda c: np.ones(len(c["length"])))
    assert (n, "Not drawn: 2 lengths" in caption) == (1, True)


def test_names_that_fill_more_than_six_rows_have_no_legend_and_the_caption_says_so():
    names = [f"model-{i:02d}-with-a-long-name" for i in range(45)]
    cells = plan(["single"], lengths=[64, 128], depths=[0.5], n=4)
    facts = study([run(name) for name in names], [task("single")], cells)
    ((picture, figure),) = draw(analyse(facts, records({name: flat(0.5) for name in names}, cells)), ["length"])
    assert "Without a legend, as there are 45 lines" in picture.caption
    for layer in layers(figure):
        for channel in ("color", "shape"):
            assert layer["encoding"].get(channel, {"legend": None})["legend"] is None


def test_a_figure_on_the_page_has_the_same_elements_and_numbers_in_fewer_bytes(results):
    name = "0.123456 is a name"
    data = {"values": [{"x": 1 / 3, "y": 2 / 7, "n": name}]}
    at = {"x": {"field": "x", "type": "quantitative"}, "y": {"field": "y", "type": "quantitative"}}
    words = render_spec({"data": data, "mark": "text", "encoding": {**at, "text": {"field": "n", "type": "nominal"}}})
    for drawn in (words, render(all_figures(results, ["length"])["length_single_corpus-words-numbers"])):
        small = drawn.for_page("f0").svg
        assert len(small) < 0.75 * len(drawn.svg)
        whole, page = (list(ElementTree.fromstring(svg).iter()) for svg in (drawn.svg, small))
        assert [(e.tag, e.text) for e in whole] == [(e.tag, e.text) for e in page]
        for one, other in zip(whole, page, strict=True):
            for key in ("d", "transform", "x", "y"):
                numbers = [[float(x) for x in NUMBER.findall(e.get(key, ""))] for e in (one, other)]
                assert numbers[1] == pytest.approx(numbers[0], abs=0.01)
    assert name in words.for_page("f0").svg


def test_distances_have_a_panel_per_length_with_the_trials_of_that_length(inputs, results):
    frame = inputs[1].to_pandas()
    figure = all_figures(results, ["distance"])["distance_single_corpus-words-numbers"]
    own = frame[(frame.haystack == "corpus") & (frame.model == "b")]
    assert panels_of(figure) == [f"{length} tokens" for length in (64, 128, 256)]
    for length in (64, 128, 256):
        bins = [row for row in rows_of(figure, "line", f"{length} tokens") if row["model"] == "b"]
        at = own[own.length == length]
        assert sum(row["n"] for row in bins) == len(at)
        assert sum(int(row["count"].split("/")[0]) for row in bins) == at.exact.sum()
        for row in bins:
            near, far = (int(end.replace(",", "")) for end in row["between"].split("–"))
            assert row["value"] == pytest.approx(at[at.distance.between(near, far)].exact.mean(), abs=1e-4)


def test_of_many_lengths_six_are_drawn_with_the_reference_and_the_longest():
    lengths = [2**i for i in range(5, 17)]
    for reference in lengths:
        chosen = chosen_lengths(lengths, reference)
        assert len(chosen) == 6
        assert {reference, lengths[-1]} <= {*chosen}
        assert chosen == sorted(chosen)
    assert chosen_lengths(lengths[:4], 64) == lengths[:4]


def test_formats_are_rows_and_models_panels(inputs, results):
    frame = inputs[1].to_pandas()
    (figure,) = all_figures(results, ["formats"]).values()
    assert panels_of(figure) == ["a", "b"]
    for name in ("a", "b"):
        cells = {(row["row"], row["column"]): row["value"] for row in rows_of(figure, "rect", name)}
        own = frame[frame.model == name].groupby(["haystack", "length"]).exact.mean()
        for haystack, format in (("corpus", "corpus/words/numbers"), ("words", "words/words/numbers")):
            for length in (64, 128, 256):
                assert cells[format, str(length)] == pytest.approx(own[haystack, length], abs=1e-4)


def test_skill_is_that_of_the_gates(several, results):
    """Of one seed: the gate's own bounds. Of several: their mean, between them."""
    (figure,) = all_figures(results, ["skill"]).values()
    shown = {(row["model"], panel): row for panel in panels_of(figure) for row in rows_of(figure, "point", panel)}
    for gate in results.gates:
        row = shown[gate.where.model, f"{gate.where.task}, {gate.where.format}: exact match"]
        assert (row["value"], row["count"]) == (
            pytest.approx(gate.accuracy.value, abs=1e-4),
            f"{gate.accuracy.k}/{gate.accuracy.n}",
        )
    (figure,) = all_figures(several, ["skill"]).values()
    means = {row["model"]: row["value"] for row in rows_of(figure, "rule")}
    for group in seed_groups(several):
        values = [g.accuracy.value for g in several.gates if g.where.model in {run.name for run in group.runs}]
        assert means[group.name] == pytest.approx(sum(values) / len(values), abs=1e-4)


def test_skill_over_guessing_is_shown_with_its_measured_bounds():
    cells = plan(["multikey"], lengths=[64, 128], depths=[0.0, 0.5, 1.0], n=40)
    facts = study([run("a"), run("b")], [task("multikey", 4)], cells)
    results = analyse(facts, records({"a": flat(0.8), "b": flat(0.5)}, cells))
    (figure,) = all_figures(results, ["skill"]).values()
    (name,) = panels_of(figure)
    assert name.endswith(": skill")
    rows = {row["model"]: row for row in rows_of(figure, "point")}
    for gate in results.gates:
        row = rows[gate.where.model]
        assert (row["value"], row["low"], row["high"]) == pytest.approx(gate.skill[1:4], abs=1e-4)


HOSTILE = ("<script>alert(1)</script>", 'it\'s $x^2$ & "quoted"', "very-long-" * 30)


def test_names_are_only_ever_text_and_one_point_has_a_figure():
    """One length, one depth, names with markup: every figure is drawn, and none has the markup as an element."""
    cells = plan(["single"], lengths=[128], depths=[0.5], n=12)
    facts = study([run(name) for name in HOSTILE], [task("single")], cells)
    results = analyse(facts, records({name: flat(0.3) for name in HOSTILE}, cells))
    charts = {picture.chart for picture, _ in draw(results)}
    assert {"skill", "length", "heatmap", "distance"} <= charts
    assert "depth" not in charts, "one depth is no profile"
    for _, chart in draw(results, ["skill", "length", "heatmap", "depth", "distance"]):
        drawn = render(chart).for_page("f0")
        tags = {element.tag.split("}")[-1] for element in ElementTree.fromstring(drawn.svg).iter()}
        assert "script" not in tags
        assert "<" not in drawn.spec
        assert 0 < float(re.search(r'width="([0-9.]+)"', drawn.svg)[1]) <= 900
    (figure,) = all_figures(results, ["length"]).values()
    assert len({row["at"] for row in rows_of(figure, "point")}) == len(HOSTILE)  # beside each other


def test_many_models_have_a_legend_of_all_and_no_bands():
    names = [f"model-{i}" for i in range(9)]
    cells = plan(["single"], lengths=[64, 128], depths=[0.5], n=10)
    facts = study([run(name) for name in names], [task("single")], cells)
    results = analyse(facts, records({name: flat(0.5) for name in names}, cells))
    ((picture, figure),) = draw(results, ["length"])
    assert "Bands" not in picture.caption
    assert not rows_of(figure, "area")
    (points,) = [layer for layer in layers(figure) if layer["mark"]["type"] == "point"]
    for channel in ("color", "shape"):
        assert points["encoding"][channel]["scale"]["domain"] == names
        assert points["encoding"][channel]["legend"]["symbolLimit"] == 0
    marks = zip(*(points["encoding"][channel]["scale"]["range"] for channel in ("color", "shape")), strict=True)
    assert len({*marks}) == len(names)
