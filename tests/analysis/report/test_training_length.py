"""Sentences and tables about training length say what the fits support."""

import pytest

from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.report.summary import summary
from lcprobe.analysis.report.tables import all_tables
from tests.analysis.fabricated import flat, plan, records, run, study, task

LENGTHS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def results_of(behaviour, trained=(64, 128, 256), seeds=2):
    cells = plan(["single"], lengths=LENGTHS, depths=(0.0, 0.5, 1.0), n=30)
    runs = [
        run(f"L{t}-m-{s}", group=f"L{t}-m", architecture="m", context_length=t, seed=s)
        for t in trained
        for s in range(seeds)
    ]
    table = records({r.name: behaviour(r.context_length) for r in runs}, cells)
    return analyse(study(runs, [task("single")], cells), table)


@pytest.mark.parametrize(
    ("behaviour", "words", "verdict"),
    [
        (lambda t: lambda c: 1 / (1 + (c["length"] / (2 * t)) ** 4), "the training length is the ceiling", "ceiling"),
        (lambda t: lambda c: c["distance"] <= 50, "a fixed reach", "fixed reach"),
        (lambda t: flat(1.0), "no ceiling up to 1,024 tokens", "no ceiling"),
        (lambda t: flat(0.0), "was not tested", "not tested"),
    ],
)
def test_the_summary_and_the_tables_say_what_was_planted(behaviour, words, verdict):
    results = results_of(behaviour)
    said = [s.text for s in summary(results) if s.topic == "Training length"]
    assert words in said[0]
    tables = all_tables(results)
    (row,) = tables["training_length"]
    assert (row["architecture"], row["verdict"]) == ("m", verdict)
    assert len(tables["effective_length"]) == 6
    assert {r["training_length"] for r in tables["effective_length"]} == {64, 128, 256}
    assert len(tables["collapse"]) == 1
    assert len(tables["depth_effects"]) > 0


def test_a_study_of_one_training_length_says_nothing_about_it():
    results = results_of(lambda t: flat(0.9), trained=(128,))
    assert not [s for s in summary(results) if s.topic == "Training length"]
    tables = all_tables(results)
    assert not any(tables[name] for name in ("training_length", "effective_length", "collapse", "depth_effects"))
