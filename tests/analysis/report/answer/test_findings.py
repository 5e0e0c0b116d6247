"""Ranked findings, the answer's four lines and folded limits: only what is resolved is said, in a fixed order."""

import re
import warnings

import numpy as np
import pytest

from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.report.answer.findings import findings, not_resolved
from lcprobe.analysis.report.answer.headline import headline_tables
from lcprobe.analysis.report.answer.limits import folded_limits
from lcprobe.analysis.report.answer.lines import answer_lines
from lcprobe.analysis.report.answer.model_pairs import model_differences
from lcprobe.analysis.report.summary import summary
from lcprobe.analysis.report.wording import DISTANCE, FORMATS, LENGTH, MODELS, POSITION, Sentence, found_text
from lcprobe.analysis.stats.estimates import Proportion
from tests.analysis.fabricated import flat, plan, records, run, study, task, three_models

CELLS = plan(["single"], lengths=[64, 128, 256], depths=[0.0, 0.5, 1.0], n=60)
CELLS += plan(["single"], lengths=[128], depths=[0.5], n=60, control="zero_distance")


def results_of(behaviours, runs=None, cells=CELLS, **changes):
    runs = runs or [run(name) for name in behaviours]
    return analyse(study(runs, [task("single")], cells, **changes), records(behaviours, cells))


FORMATS_OF_TWO = [("corpus", "words", "numbers"), ("corpus", "words", "hex")]


def by_format(first: float, second: float):
    return lambda c: np.where(c["value_format"] == "numbers", first, second)


def past(p: float):
    return lambda c: np.where(c["length"] > 128, p, 0.97)


def test_kinds_come_in_their_rank_and_every_finding_has_a_number_and_its_task():
    found = findings(analyse(*three_models(["words", "uuids"])))
    topics = list(dict.fromkeys(s.topic for s in found))
    wanted = [MODELS, LENGTH, POSITION, DISTANCE, FORMATS]
    assert [t for t in topics if t in wanted] == wanted
    assert all(any(c.isdigit() for c in s.text) and s.task in ("single", "multikey") for s in found)


def test_the_higher_model_is_named_first_with_the_bounds_of_the_records():
    results = results_of({"a": past(0.2), "b": past(0.9)})
    zones = model_differences(results, "single")
    (pair,) = zones["past the training length"].found
    assert (pair.higher, pair.lower) == ("b", "a")
    contrast = next(c for c in results.of("models") if c.resolved)
    assert (contrast.difference or 0) < 0, "a − b"
    assert pair.text.startswith(f"+{-(contrast.difference or 0):.2f} (+{-(contrast.high or 0):.2f} to ")
    assert zones["up to the training length"].found == []
    first = findings(results)[0]
    assert first.topic == MODELS
    assert "past the training length (256 tokens, corpus/words/numbers): b above a by +" in first.text
    assert first.text.endswith("on these runs (one training seed).")
    line = answer_lines(results, headline_tables(results))[0]
    assert line.text == (
        "Past the training length: b is above a; up to the training length: not testable (both at ceiling)."
    )


def test_nothing_resolved_is_said_and_nothing_else():
    results = results_of({"a": flat(0.4), "b": flat(0.4)})
    assert [s.text for s in findings(results)] == [
        "Nothing is resolved: no tested statement is a finding of this report."
    ]
    which, up_to, lost, sure = answer_lines(results, headline_tables(results))
    assert "no difference resolved" in which.text
    assert up_to.text == "a, b: task not shown to be acquired." == lost.text
    assert sure.text.startswith("1 training seed a model: what is said of models is about these runs")


def test_what_was_seen_is_said_where_no_difference_is_resolved():
    """With seeds that differ by more than models: the scores of both, the best first, and of each seed."""
    cells = plan(["single"], lengths=[64, 128, 256, 512], depths=[0.0, 0.5, 1.0], n=40)
    cells += plan(["single"], lengths=[128], depths=[0.5], n=40, control="zero_distance")
    falls = {"a-s0": 0.9, "a-s1": 0.1, "b-s0": 0.2, "b-s1": 0.1}
    behaviours = {name: (lambda c, p=p: np.where(c["length"] > 256, p, 0.97)) for name, p in falls.items()}
    runs = [run(name, group=name[0], seed=int(name[-1])) for name in falls]
    results = results_of(behaviours, runs, cells)
    which, up_to, lost, _ = answer_lines(results, headline_tables(results))
    seen = re.search(
        r"past the training length: no difference resolved \(seen at 512 tokens: (.*?)\)", which.text, re.I
    )
    assert seen is not None, which.text
    first, second = seen[1].split("; ")
    assert re.fullmatch(r"a 0\.[45]\d, by seed 0\.[01]\d to 0\.[89]\d", first)
    assert re.fullmatch(r"b 0\.[012]\d, by seed 0\.[01]\d to 0\.[12]\d", second)
    own = dict(up_to.parts)
    assert own["b"].endswith(", lower from 512 tokens on"), "in both seeds"
    assert "lower" not in own["a"], "one seed is not"
    assert {who for line in (up_to, lost) for who, _ in line.parts} <= {"a", "b", "a, b"}


def test_of_more_than_two_models_at_ceiling_all_are():
    results = results_of({name: flat(0.99) for name in "abc"})
    zones = model_differences(results, "single")
    assert {zone.nothing for zone in zones.values()} == {"not testable (all 3 at ceiling)"}
    assert "both" not in answer_lines(results, headline_tables(results))[0].text


def test_how_sure_is_the_longest_arm_of_an_interval_and_the_largest_spread_of_seeds():
    """Every score is within what is said of all; seeds of 0.9 and 0.1 are said to be so far apart."""
    cells = plan(["single"], lengths=[64, 128, 256], depths=[0.0, 0.5, 1.0], n=40)
    rates = {"a-s0": 0.9, "a-s1": 0.1, "b-s0": 0.97, "b-s1": 0.97}
    behaviours = {name: (lambda c, p=p: np.where(c["length"] > 128, p, 0.999)) for name, p in rates.items()}
    results = results_of(behaviours, [run(name, group=name[0], seed=int(name[-1])) for name in rates], cells)
    tables = headline_tables(results)
    sure = answer_lines(results, tables)[3].text
    said = re.search(r"Scores on single of these seeds are within ±(\d\.\d\d) \(95 %, over samples\)", sure)
    assert said is not None, sure
    scores = [s.estimate for row in tables[0].rows for s in row.scores if isinstance(s.estimate, Proportion)]
    assert max(max(e.value - e.low, e.high - e.value) for e in scores) == pytest.approx(float(said[1]), abs=0.006)
    (spread,) = re.findall(r"by seed they spread most for a at 256 tokens: (\d\.\d\d) to (\d\.\d\d)\.", sure)
    assert float(spread[0]) < 0.2
    assert float(spread[1]) > 0.8


def test_differences_between_models_of_any_task_come_first():
    """Models differ on the last task alone."""
    names = ["single", "second", "third", "fourth"]
    cells = plan(names, lengths=[128, 256], depths=[0.0, 0.5, 1.0], n=60)
    cells += plan(names, lengths=[128], depths=[0.5], n=60, control="zero_distance")
    late = {"a": 0.9, "b": 0.5}
    behaviours = {
        m: (lambda c, p=p: np.where((c["task"] == "fourth") & (c["length"] > 128), p, 0.97)) for m, p in late.items()
    }
    facts = study([run("a"), run("b")], [task(name) for name in names], cells)
    results = analyse(facts, records(behaviours, cells))
    topics = [s.topic for s in findings(results)]
    assert not_resolved(results) == [], "a finding compares models"
    assert LENGTH in topics
    assert topics.index(MODELS) == 0


def test_one_length_says_nothing_of_effective_lengths_and_what_was_seen_of_models_is_said_once():
    """Three seeds each, all 0.97 on one task and apart on the other, which needs more seeds to be resolved."""
    cells = plan(["single"], lengths=[64, 128, 256], depths=[0.0, 0.5, 1.0], n=20)
    cells += plan(["crowded"], lengths=[128], depths=[0.0, 0.5, 1.0], n=20)
    cells += plan(["single", "crowded"], lengths=[128], depths=[0.5], n=60, control="zero_distance")
    rates = {"a-s0": 0.97, "a-s1": 0.90, "b-s0": 0.75, "b-s1": 0.55}

    def of(rate):
        return lambda c: np.where((c["task"] == "crowded") & (c["control"] == "none"), rate, 0.97)

    behaviours = {name: of(rate) for name, rate in rates.items()}
    facts = study(
        [run(name, group=name[0], seed=int(name[-1])) for name in rates], [task("single"), task("crowded")], cells
    )
    results = analyse(facts, records(behaviours, cells))
    assert not any(c.resolved for c in results.of("models"))
    found = findings(results)
    assert {s.task for s in found if s.topic == LENGTH} == {"single"}
    assert not [s for s in found if s.topic == MODELS], "what is not resolved is no finding"
    (seen,) = not_resolved(results)
    assert re.fullmatch(
        r"crowded: seen at 128 tokens, where models differ most, and not resolved: a 0\.\d\d \(by seed 0\.\d\d to [01]\.\d\d\) above "
        r"b 0\.\d\d \(by seed 0\.\d\d to 0\.\d\d\)\. No finding compares models\.",
        seen.text,
    )


def test_unresolved_pairs_are_counted_and_never_ranked():
    results = results_of({"a": past(0.9), "b": past(0.9), "c": past(0.1)})
    text = findings(results)[0].text
    assert "1 pair not resolved" in text
    assert "a above b" not in text
    assert "b above a" not in text


def test_limits_of_a_kind_share_a_line_with_all_of_their_sentences():
    results = results_of({"a": flat(0.1), "b": flat(0.1)}, runs=[run("a", tuned="not swept"), run("b", tuned="no")])
    sentences = summary(results)
    limits = {limit.kind: limit for limit in folded_limits(sentences)}
    assert limits["Learning rate not tuned"].line == "Learning rate not tuned: 2 models (a, b)"
    assert limits["One training seed"].line == "One training seed: 2 models (a, b)"
    assert limits["Task not acquired"].line == "Task not acquired: a on single, b on single"
    assert len(limits["Task not acquired"].sentences) == 2
    behind = [text for limit in limits.values() for text in limit.sentences]
    assert sorted(behind) == sorted(s.text for s in sentences if s.warning)


def test_a_task_that_is_only_not_shown_says_so_with_the_interval_that_decides():
    cells = plan(["single"], FORMATS_OF_TWO, [64, 128], [0.0, 0.5, 1.0], 60)
    cells += plan(["single"], FORMATS_OF_TWO, [128], [0.5], 60, "zero_distance")
    results = analyse(study([run("a")], [task("single")], cells), records({"a": by_format(0.1, 0.56)}, cells))
    limits = {limit.kind: limit for limit in folded_limits(summary(results))}
    assert limits["Task not acquired"].line == "Task not acquired: a on single in 1 of 2 formats"
    kind = "Task not shown to be acquired"
    assert limits[kind].line == f"{kind}: a on single in 1 of 2 formats"
    for kind, side in (("Task not acquired", "below"), ("Task not shown to be acquired", "around")):
        (text,) = limits[kind].sentences
        (interval,) = re.findall(r"/60; ([\d.]+)–([\d.]+)\), needed > 0.50", text)
        low, high = map(float, interval)
        assert (high < 0.5) if side == "below" else (low <= 0.5 <= high)


def test_what_is_over_several_formats_stands_at_their_picture_and_the_answer_is_about_the_first():
    cells = plan(["single"], FORMATS_OF_TWO, [64, 128], [0.0, 0.5, 1.0], 60)
    behaviours = {"a": by_format(1.0, 0.9), "b": by_format(1.0, 0.2)}
    results = analyse(study([run("a"), run("b")], [task("single")], cells), records(behaviours, cells))
    zone = model_differences(results, "single")["up to the training length"]
    assert (zone.found, zone.nothing) == ([], "not testable (both at ceiling)")
    texts = {s.topic: s.text for s in findings(results) if "a above b" in s.text}
    assert [*texts] == [FORMATS]
    assert texts[FORMATS].startswith(
        "single: up to the training length (64 to 128 tokens, 2 formats together): a above b by +"
    )


def test_single_lengths_of_the_first_format_are_said_where_the_test_is_over_several():
    cells = plan(["single"], FORMATS_OF_TWO, [128, 256], [0.0, 0.5, 1.0], 60)
    results = results_of({"a": past(0.9), "b": past(0.2)}, cells=cells)
    (pair,) = model_differences(results, "single")["past the training length"].found
    assert (pair.higher, pair.at, pair.contrast.format) == ("a", 256, "corpus/words/numbers")
    assert answer_lines(results, headline_tables(results))[0].text.startswith(
        "Past the training length: a is above b at 256 tokens"
    )


def test_where_it_is_lost_and_kept_has_the_scores_of_the_places():
    cells = plan(["single"], lengths=[64, 128, 256], depths=[0.1, 0.3, 0.5, 0.7, 0.9], n=100)
    cells += plan(["single"], lengths=[128], depths=[0.5], n=100, control="zero_distance")
    late = lambda c: np.where((c["length"] > 128) & (c["depth"] < 0.8), 0.4, 0.98)  # noqa: E731
    results, frame = results_of({"a": late}, cells=cells), records({"a": late}, cells).to_pandas()
    at = frame[(frame.control == "none") & (frame.length == 256)].groupby("depth").exact.mean()
    lost = sorted((at[0.1], at[[0.3, 0.5, 0.7]].mean()))
    span = "–".join(dict.fromkeys(f"{x:.2f}" for x in lost))
    words = f"lost at the start and in the middle ({span}), kept at the end ({at[0.9]:.2f}) at 256 tokens"
    lines = answer_lines(results, headline_tables(results))
    assert words in lines[2].text
    assert any(s.topic == POSITION and words in s.text for s in findings(results))
    assert lines[3].text.startswith("1 training seed a model. "), "one model: nothing is said of architectures"


def test_one_sample_of_one_length_is_said_in_words_and_without_a_warning():
    cells = plan(["single"], lengths=[128], depths=[0.5], n=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        results = results_of({"a": flat(1.0), "b": flat(1.0)}, cells=cells)
        lines = answer_lines(results, headline_tables(results))
    assert not any("shared samples" in line.text for line in lines)


@pytest.mark.parametrize(
    ("found", "tested", "text"),
    [
        (0, 1, "the one tested statement is no finding"),
        (1, 1, "the one tested statement is a finding"),
        (0, 9, "none of 9 tested statements is a finding"),
        (1, 9, "1 of 9 tested statements is a finding"),
        (1200, 3000, "1,200 of 3,000 tested statements are findings"),
    ],
)
def test_findings_are_counted_in_good_english(found, tested, text):
    assert found_text(found, tested) == text


def test_every_warning_has_a_kind():
    facts, table = three_models(["words"])
    runs = [
        run(r.name, tuned="published", params=9 * r.params, tokens=i, skipped_steps=1)
        for i, r in enumerate(facts.runs)
    ]
    facts = study(runs, facts.tasks, list(facts.expected_cells), notes=["x"], unread=["y"])
    assert all(s.kind for s in summary(analyse(facts, table)) if s.warning)


def test_long_lists_of_names_are_cut():
    names = tuple(f"m{i}" for i in range(9))
    (limit,) = folded_limits([Sentence("t", "x", True, kind="Odd", about=names, unit="model")])
    assert limit.line == "Odd: 9 models (m0, m1, m2, m3 and 5 more)"
    (limit,) = folded_limits([Sentence("t", "x", True, kind="Odd", about=names[:1], unit="model")])
    assert limit.line == "Odd: 1 model (m0)"
