"""Chapters of the page: every reason why a model is not causal has its line, and chapters without content are left out."""

import re
from typing import get_args

from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.inputs import NotCausal
from lcprobe.analysis.report.finding_tables import distance_table
from lcprobe.analysis.report.page.chapters import NOT_CAUSAL, sections
from lcprobe.analysis.report.tables import distance_rows
from tests.analysis.fabricated import flat, plan, records, run, study, task, window

CELLS = plan(["single"], lengths=[64, 128], depths=[0.0, 0.5, 1.0], n=20)


def test_every_reason_for_not_being_causal_is_reported_with_its_models():
    reasons = [reason for reason in get_args(NotCausal) if reason]
    assert set(reasons) == set(NOT_CAUSAL)
    runs = [run(f"run-{reason}", not_causal=reason) for reason in reasons] + [run("causal")]
    runs[0] = run(runs[0].name, not_causal=reasons[0], extension="yarn", base="causal", group="causal")
    table = records({r.name: flat(0.5) for r in runs}, CELLS)
    chapters = sections(analyse(study(runs, [task("single")], CELLS), table), [])
    lines = [text for chapter in chapters for text in chapter.text]
    for reason, sentence in NOT_CAUSAL.items():
        assert f"{sentence}: run-{reason}." in lines


def test_chapters_without_content_are_left_out():
    chapters = sections(analyse(study([run("a")], [task("single")], CELLS), records({"a": flat(0.5)}, CELLS)), [])
    ids = [chapter.id for chapter in chapters]
    assert not {"context", "formats", "models-compared", "extensions", "bias", "training"} & set(ids)
    assert {"models", "tasks", "length", "place", "distance", "cells", "methods", "versions"} <= set(ids)


def test_distances_are_counted_at_each_length_by_itself():
    results = analyse(study([run("a")], [task("single")], CELLS), records({"a": window(60)}, CELLS))
    rows = distance_table(results).rows
    assert {row[3] for row in rows} == {"64", "128"}
    for length in ("64", "128"):
        counts = [re.search(r"\((\d+)/(\d+),", row[5]) for row in rows if row[3] == length]
        assert sum(int(found[2]) for found in counts if found) == 3 * 20
        assert next(row[5] for row in rows if row[3] == length).startswith("1.00"), "the nearest are in the window"
    far = [row[5] for row in rows if row[3] == "128"][-1]
    assert far.startswith("0.00")
    exported = distance_rows(results)
    assert sum(row["n"] for row in exported if row["length"] == 128) == 3 * 20
    assert sum(row["n"] for row in exported if row["length"] is None) == 2 * 3 * 20
