"""`lcprobe figure` and `lcprobe table` on a report's folder: files, lists and mistakes."""

import csv

import pytest

from lcprobe.cli.commands import main
from lcprobe.files import write_atomic
from lcprobe.probing.store import Store
from lcprobe.studies.evaluation.report_inputs import ReportInputs, save_inputs
from tests.analysis.fabricated import flat, plan, records, run, study, task, window

CELLS = plan(["multi"], lengths=[64, 128, 256], depths=[0.0, 0.5, 1.0], n=6)
FACTS = study([run("ssm"), run("rope")], [task("multi", 4)], CELLS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report named after its question, over records that are elsewhere, with a display name."""
    home = tmp_path_factory.mktemp("study")
    Store(home / "records").finish("1", records({"ssm": flat(0.8), "rope": window(150)}, CELLS).to_pylist(), {})
    save_inputs(home / "reports" / "mine", ReportInputs(FACTS, ["1"], [], None, "../..", {"ssm": "Mamba-2"}))
    return home / "reports" / "mine"


@pytest.mark.parametrize(
    ("suffix", "start"), [("pdf", b"%PDF"), ("svg", b"<svg"), ("png", b"\x89PNG"), ("json", b"{")]
)
def test_a_figure_in_every_format(folder, tmp_path, capsys, suffix, start):
    out = tmp_path / f"fig.{suffix}"
    assert (
        main(["figure", str(folder), "length", f"out={out}", "models=ssm", "title=", "width=120", "names.rope=RoPE"])
        == 0
    )
    assert out.read_bytes().startswith(start)
    assert capsys.readouterr().out.startswith(f"{out}: ")
    if suffix == "svg":
        assert "Mamba-2" in out.read_text()
        assert "rope" not in out.read_text()


def test_all_figures_of_a_chart_go_into_a_folder_and_without_out_into_the_working_one(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "figs").mkdir()
    assert main(["figure", str(folder), "depth", "out=figs"]) == 0
    assert len(list((tmp_path / "figs").glob("depth_multi_*.pdf"))) >= 2
    assert main(["figure", str(folder), "skill", "models=ssm"]) == 0
    assert [path.name for path in tmp_path.glob("*.pdf")] == ["skill.pdf"]


def test_lists(folder, capsys):
    assert main(["figure", str(folder)]) == 0
    assert "length_multi_corpus-words-numbers" in capsys.readouterr().out
    assert main(["table", str(folder)]) == 0
    assert "page/exact-match-on-multi: 2 rows" in capsys.readouterr().out


def test_the_list_of_a_written_report_is_that_of_its_files(folder, tmp_path, capsys):
    for name in ("length_multi_a", "training_data_text", "training_a", "notes"):
        write_atomic(tmp_path / "figures" / f"{name}.svg", "<svg/>")
    assert main(["figure", str(tmp_path)]) == 0
    told = capsys.readouterr().out.split("\n")
    assert told[:6] == [
        "length",
        "  length_multi_a",
        "training",
        "  training_a",
        "training_data",
        "  training_data_text",
    ]


def test_one_file_has_the_first_of_several_formats_and_says_so(tmp_path, capsys):
    cells = plan(["multi"], [("corpus", "words", "numbers"), ("corpus", "words", "hex")], [64, 128], [0.0, 1.0], 4)
    Store(tmp_path / "records").finish("1", records({"ssm": flat(0.8)}, cells).to_pylist(), {})
    save_inputs(tmp_path, ReportInputs(study([run("ssm")], [task("multi", 4)], cells), ["1"], [], None))
    out = tmp_path / "f.svg"
    assert main(["figure", str(tmp_path), "length", "task=multi", f"out={out}"]) == 0
    told = capsys.readouterr().out
    assert "corpus/words/numbers: the first of 2 formats" in told
    assert "corpus/words/numbers" in out.read_text()
    assert main(["figure", str(tmp_path), "length", "format=corpus/words/hex", f"out={out}"]) == 0
    assert "corpus/words/hex" in out.read_text()


def test_a_table_as_latex_and_as_numbers_in_full(folder, tmp_path):
    tex, numbers = tmp_path / "t.tex", tmp_path / "t.csv"
    assert main(["table", str(folder), "exact-match-on-multi", f"out={tex}", "names.rope=R&B"]) == 0
    assert r"R\&B &" in tex.read_text()
    assert (
        main(["table", str(folder), "cells", f"out={numbers}", "columns=model,length,accuracy", "lengths=128"]) == 0
    )
    with open(numbers) as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == {"Mamba-2", "rope"}
    assert {row["length"] for row in rows} == {"128"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["figure"], "FOLDER [FIGURE]"), (["figure", "FOLDER", "length", "more"], "FOLDER [FIGURE]"),
        (["table", "FOLDER", "--plan"], "FOLDER [TABLE]"), (["figure", "nowhere"], "no report.json"),
        (["figure", "FOLDER", "depth", "out=x.pdf"], "out= an existing folder"), (["figure", "FOLDER", "names.x=Y"], "study.names.x"),
        (["figure", "FOLDER", "names.rope=Mamba-2"], "a name of its own"), (["table", "FOLDER", "cells", "out=t.pdf"], ".tex | .csv"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(folder, capsys, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    assert main([str(folder) if word == "FOLDER" else word for word in words]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
