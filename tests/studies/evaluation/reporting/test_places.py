"""A report is named after its question: the same one goes on, another replaces nothing, and records are shared."""

from dataclasses import replace
from pathlib import Path

import pytest

from lcprobe.config import Config, parse
from lcprobe.files import write_atomic
from lcprobe.schema import plain
from lcprobe.studies.evaluation.report_inputs import ReportInputs, load_inputs, save_inputs
from lcprobe.studies.evaluation.reporting.places import place_of, report_times
from lcprobe.studies.evaluation.reporting.question import Question, question_of, read_question
from tests.analysis.fabricated import plan, run, study, task

SINGLE = {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}


def config(**probe) -> Config:
    return parse({"probe": {"tasks": {"single": SINGLE, "vt": {"type": "vt"}}, "grids": [{"lengths": [1]}], **probe}})


def asked(**probe) -> Question:
    return question_of([], config(**probe), Path("."))


def report(folder: Path, question: Question | None, units=("1",)) -> None:
    written = None if question is None else plain(question)
    save_inputs(
        folder, ReportInputs(study([run("a")], [task("t")], plan(["t"], lengths=[64])), [*units], [], written)
    )
    write_atomic(folder / "report.html", "a page")


FIRST, OTHER = asked(), asked(grids=[{"lengths": [1, 8]}])


def test_the_first_question_has_the_studys_folder_and_keeps_it(tmp_path):
    assert place_of(tmp_path, "q", None, FIRST, ["1"]).folder == tmp_path
    report(tmp_path, FIRST)
    same = asked(batch_tokens=7, chunk=5, cache_gb=0.0, while_training={"lengths": [1]})
    assert place_of(tmp_path, "q", None, same, ["1", "2"]).folder == tmp_path, "the machine is no part of a question"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"grids": [{"lengths": [1, 8]}]}, "probe.grids"),
        ({"scoring": "generate"}, "probe.scoring"),
        ({"precision": "bf16"}, "probe.precision"),
        ({"tasks": {"single": {**SINGLE, "n_keys": 2}}}, "probe.tasks"),
    ],
)
def test_another_question_has_a_folder_of_its_own_and_comes_back_to_it(tmp_path, settings, key):
    report(tmp_path, FIRST)
    other = asked(**settings)
    place = place_of(tmp_path, "q", None, other, ["1"])
    assert place.folder.parent == tmp_path / "reports"
    assert key in place.note
    assert str(place.folder) in place.note
    assert place.title == "q"
    assert place.asks == f"{other.tasks_text}; other {key.removeprefix('probe.')} than the first report"
    report(place.folder, other)
    assert place_of(tmp_path, "q", None, other, ["1"]) == place
    assert place_of(tmp_path, "q", None, FIRST, ["1"]).folder == tmp_path
    assert set(report_times(tmp_path)) == {tmp_path, place.folder}


def test_a_name_is_honoured_and_given_to_one_question_only(tmp_path):
    place = place_of(tmp_path, "q", "long", FIRST, ["1"])
    assert (place.folder, place.title, place.note) == (tmp_path / "reports" / "long", "long", "")
    report(place.folder, FIRST)
    assert place_of(tmp_path, "q", "long", FIRST, ["1"]) == place
    other = place_of(tmp_path, "q", "long", OTHER, ["1"])
    assert other.folder.name == f"long-{OTHER.digest[:6]}"
    assert "another question" in other.note


def test_reports_of_older_versions_are_told_apart_by_their_records(tmp_path):
    report(tmp_path, None, ["1", "2"])
    assert place_of(tmp_path, "q", None, FIRST, ["2", "1"]).folder == tmp_path
    other = place_of(tmp_path, "q", None, FIRST, ["1", "3"])
    assert other.folder != tmp_path
    assert "older version, without its question" in other.note
    assert str(other.folder) in other.note


def test_the_studys_own_question_refreshes_a_report_that_has_none(tmp_path):
    report(tmp_path, None, ["old"])
    assert place_of(tmp_path, "q", None, FIRST, ["1"], is_own=True).folder == tmp_path
    report(tmp_path, OTHER, ["old"])
    assert place_of(tmp_path, "q", None, FIRST, ["1"], is_own=True).folder != tmp_path, "it says that it asks another"


def test_what_cannot_be_read_is_kept(tmp_path):
    write_atomic(tmp_path / "report.html", "mine")
    write_atomic(tmp_path / "report.json", "{")
    assert place_of(tmp_path, "q", None, FIRST, ["1"]).folder.parent == tmp_path / "reports"


def test_a_question_survives_its_file_and_a_key_that_did_not_exist_has_its_default(tmp_path):
    report(tmp_path, OTHER)
    written = load_inputs(tmp_path).question
    assert written is not None
    assert read_question(written) == OTHER
    del written["probe"]["templates"], written["probe"]["grids"][0]["n"]
    read = read_question(written)
    assert read is not None
    assert read.digest == OTHER.digest
    assert read_question({**written, "probe": {"gone": 1}}) is None


def test_names_of_questions_are_names_of_folders():
    from lcprobe.files import check_name

    hostile = parse({"probe": {"tasks": {"../a b/ü": SINGLE, "x" * 80: SINGLE}, "grids": [{"lengths": [1]}]}})
    for question in (FIRST, question_of([], hostile, Path(".")), replace(FIRST, probe=config(grids=[]).probe)):
        assert check_name("study.name", question.name) == question.name
