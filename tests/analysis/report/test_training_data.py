"""What training asked and could see: one row per run, and a flag exactly where it falls short of the training length."""

from dataclasses import replace

import numpy as np
import pytest

from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.report.finding_tables import ratio_table
from lcprobe.analysis.report.summary import READ_FIRST, summary
from lcprobe.analysis.report.tables import all_tables
from lcprobe.training_data import SHARES, TrainingData
from tests.analysis.fabricated import flat, plan, records, run, study, task

CELLS = plan(["single"], lengths=[64, 128, 256], depths=[0.0, 0.5, 1.0], n=10)


def evenly(most: float) -> tuple[float, ...]:
    return tuple(round(share * most) for share in SHARES)


FULL = TrainingData(evenly(120), (128.0,) * 21, evenly(127), 0.25, "uniform")


def results(*runs):
    table = records({r.name: flat(0.5) for r in runs}, CELLS)
    return analyse(study(runs, [task("single")], CELLS), table)


def flagged(found, words):
    return [s.text for s in summary(found) if s.topic == READ_FIRST and s.warning and s.text.startswith(words)]


def test_training_over_its_whole_length_is_not_flagged():
    found = results(run("a", training_data=FULL), run("b"))
    assert flagged(found, "Short pieces") == []
    assert flagged(found, "Rarely asked") == []


def test_short_documents_are_flagged_with_the_numbers():
    visible = tuple(20.0 + i for i in range(21))
    found = results(run("a", training_data=replace(FULL, visible=visible)), run("b", training_data=FULL))
    (text,) = flagged(found, "Short pieces")
    assert "that a read" in text
    assert "at most 30 tokens, 0.23 of the training length of 128" in text
    assert "Text is 25 % of".replace(" %", "%") in text
    assert "training at 30 tokens" in text
    assert flagged(found, "Rarely asked") == []


@pytest.mark.parametrize(("median", "n"), [(63.0, 1), (64.0, 0)])
def test_half_of_the_training_length_is_the_limit(median, n):
    data = replace(FULL, visible=(*[10.0] * 10, *[median] * 11), needle_distances=(*[10.0] * 19, median, 128.0))
    found = results(run("a", training_data=data))
    assert len(flagged(found, "Short pieces")) == len(flagged(found, "Rarely asked")) == n


def test_past_the_training_length_begins_where_trained_distances_end():
    """Asked at most 60 tokens back in 128: 128 tokens are past what was trained, in the sentence and in the table."""
    short = replace(FULL, needle_distances=evenly(60))
    found = results(run("a", training_data=short), run("b", training_data=FULL))
    (text,) = flagged(found, "Trained distances end before")
    assert "no training question of a is about a needle more than 60 tokens back" in text
    assert "begins after the longest tested length within them, 64 tokens" in text
    rows = {(row[0], row[3]): row[4] for row in ratio_table(found).rows}
    assert rows == {("a", "64"): "0.5", ("a", "128"): "1 *", ("a", "256"): "2"} | {
        ("b", "64"): "0.5", ("b", "128"): "1", ("b", "256"): "2"
    }  # fmt: skip
    assert {c.what for c in found.of("length") if c.subject == "a"} == {"128 − 64 tokens", "256 − 64 tokens"}
    assert flagged(results(run("b", training_data=FULL)), "Trained distances end") == []


def test_questions_about_near_needles_are_flagged_beside_the_probes_distances():
    near = replace(FULL, needle_distances=evenly(33), distance="recent")
    runs = [run(f"a-s{seed}", group="a", seed=seed, training_data=near) for seed in (0, 1)]
    found = results(*runs, run("b", training_data=FULL))
    (text,) = flagged(found, "Rarely asked")
    assert "questions of a are about a needle at most 31 tokens back, 0.24 of the training length of 128" in text
    assert "(distance: recent)" in text
    frame = found.data.records.to_pandas()
    distances = frame[(frame.control == "none") & frame.model.isin(["a-s0", "a-s1"])].distance.dropna()
    median = np.sort(distances)[(len(distances) - 1) // 2]
    assert f"The probe asks {median:,.0f} tokens back in the median and {distances.max():,.0f} at most" in text


def test_runs_without_text_or_episodes_or_the_file_are_not_flagged():
    text_only = TrainingData((), (128.0,) * 21, evenly(127), 1.0, "")
    episodes_only = TrainingData(evenly(120), (), (), 0.0, "log")
    found = results(run("a", training_data=text_only), run("b", training_data=episodes_only), run("c"))
    assert flagged(found, "Short pieces") == flagged(found, "Rarely asked") == []


def test_variants_of_a_flagged_run_are_not_flagged_again():
    near = replace(FULL, needle_distances=evenly(33), distance="recent")
    variant = run("a+yarn", group="a+yarn", training_data=near, extension="yarn", base="a")
    (text,) = flagged(results(run("a", training_data=near), variant), "Rarely asked")
    assert "yarn" not in text


def test_a_length_schedule_is_stated_once_for_the_seeds_of_a_group():
    schedule = "64 until 0.5, then 128"
    runs = [run(f"a-s{seed}", group="a", seed=seed, length_schedule=schedule) for seed in (0, 1)]
    found = [s for s in summary(results(*runs, run("b"))) if s.text.startswith("Context lengths changed")]
    (sentence,) = found
    assert f"(a: {schedule}). The training length is the longest, and FLOPs are" in sentence.text
    assert not sentence.warning
    assert not [s for s in summary(results(run("b"))) if s.text.startswith("Context lengths changed")]


def test_the_table_has_one_row_per_run_with_all_quantiles():
    rows = all_tables(results(run("a", training_data=FULL, length_schedule="64 until 0.5, then 128"), run("b")))[
        "training_data"
    ]
    assert [row["model"] for row in rows] == ["a", "b"]
    assert rows[0].keys() == rows[1].keys()
    assert [rows[0][f"needle_distances_{5 * i}"] for i in range(21)] == list(FULL.needle_distances)
    assert [rows[0][f"visible_before_{5 * i}"] for i in range(21)] == list(FULL.visible_before)
    assert (rows[0]["distance"], rows[0]["text_share"]) == ("uniform", 0.25)
    assert rows[0]["length_schedule"] == "64 until 0.5, then 128"
    assert {value for name, value in rows[1].items() if name.startswith("visible")} == {None}


def test_there_is_no_table_where_no_run_recorded_any():
    assert all_tables(results(run("a"), run("b")))["training_data"] == []
