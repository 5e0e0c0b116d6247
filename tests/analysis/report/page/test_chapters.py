"""Chapters of the page: every reason why a model is not causal has its line, and chapters without content are left out."""

from typing import get_args

from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.inputs import NotCausal
from lcprobe.analysis.report.page.chapters import NOT_CAUSAL, sections
from tests.analysis.fabricated import flat, plan, records, run, study, task

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
