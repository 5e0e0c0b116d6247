"""A part of a report has the numbers of the whole, and a figure made again the sizes, title and models that are asked for."""

import json
import re
import shlex

import pytest

from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.report.charts.render import render_spec
from lcprobe.analysis.report.exports.choices import FigureChoices, Selection, TableChoices
from lcprobe.analysis.report.exports.remade import figure_list, remade
from lcprobe.analysis.report.exports.remade_tables import remade_table, table_list
from lcprobe.analysis.report.exports.selection import selected
from lcprobe.analysis.report.tables import all_tables
from lcprobe.cli.help import FIGURE, TABLE
from lcprobe.config import read_settings
from lcprobe.errors import ConfigError
from lcprobe.schema import build
from tests.analysis.fabricated import flat, plan, records, run, study, task, window
from tests.docs.test_site import ROOT

FORMATS = [("corpus", "words", "numbers"), ("words", "words", "words")]
CELLS = plan(["single", "multi"], FORMATS, [64, 128, 256], [0.0, 1.0], 4)
RUNS = [run("ssm-0", group="ssm", seed=0), run("ssm-1", group="ssm", seed=1), run("rope"), run("both")]
BEHAVIOUR = {"ssm-0": flat(0.8), "ssm-1": flat(0.7), "rope": window(150), "both": window(90)}


@pytest.fixture(scope="module")
def results():
    return analyse(study(RUNS, [task("single"), task("multi", 4)], CELLS), records(BEHAVIOUR, CELLS))


@pytest.mark.parametrize(
    "selection",
    [
        Selection(models=["rope"]),
        Selection(tasks=["multi"], lengths=[128, 256]),
        Selection(models=["both", "ssm"], formats=["words/words/words"]),
    ],
)
def test_the_tables_of_a_part_are_rows_of_the_whole(results, selection):
    part, whole = all_tables(selected(results, selection)), all_tables(results)
    named = {"rope", "both", "ssm-0", "ssm-1"} & {
        n for m in selection.models for n in ({"ssm-0", "ssm-1"} if m == "ssm" else {m})
    }
    assert sum(map(len, part.values())) < sum(map(len, whole.values()))
    for name, rows in part.items():
        assert all(row in whole[name] for row in rows), name
    for row in part["cells"]:
        assert not selection.models or row["model"] in named
        assert not selection.tasks or row["task"] in selection.tasks
        assert not selection.lengths or row["length"] in selection.lengths
    kept = [
        row
        for row in whole["cells"]
        if (not named or row["model"] in named)
        and (not selection.tasks or row["task"] in selection.tasks)
        and (not selection.lengths or row["length"] in selection.lengths)
        and (not selection.formats or row["haystack"] == "words")
    ]
    assert sorted(map(str, part["cells"])) == sorted(map(str, kept))


def test_no_selection_is_everything(results):
    assert all_tables(selected(results, Selection())) == all_tables(results)


@pytest.mark.parametrize(
    ("choices", "key", "words"),
    [
        ({"models": "sms"}, "models", "did you mean 'ssm'"),
        ({"task": ["single", "nope"]}, "task", "single | multi"),
        ({"format": "corpus/words"}, "format", "corpus/words/numbers"),
        ({"lengths": "100"}, "lengths", "64 | 128 | 256"),
    ],
)
def test_what_is_not_there_is_named(results, choices, key, words):
    with pytest.raises(ConfigError, match=f"^{key}: ") as caught:
        selected(results, build(FigureChoices, choices).selection)
    assert words in str(caught.value)


def test_a_figure_has_the_sizes_the_title_and_the_models_in_their_order(results):
    choices = build(
        FigureChoices,
        {
            "width": 200,
            "height": 90,
            "title": "Mine",
            "models": "both,ssm",
            "task": "multi",
            "format": "corpus/words/numbers",
        },
    )
    ((picture, spec),) = remade(results, "length", choices)
    sizes = {(view["width"], view["height"]) for view in spec["concat"]}
    assert sizes == {(200, 90)}
    assert spec["title"]["text"] == "Mine"
    text = json.dumps(spec)
    assert "rope" not in text
    assert text.index('"domain": ["both", "ssm"]') > 0
    assert "Mine" in render_spec(spec).svg
    assert (picture.task, picture.format) == ("multi", "corpus/words/numbers")
    untitled = next(remade(results, "length", build(FigureChoices, {"title": "", "models": "rope"})))[1]
    assert "title" not in untitled


def test_one_figure_is_found_by_its_name_and_a_mistyped_one_named(results):
    listed = figure_list(results, build(FigureChoices, {"format": "corpus/words/numbers", "models": "rope"}))
    assert len(listed["length"]) == 2
    name = listed["heatmap"][1].name
    assert [picture.name for picture, _ in remade(results, name, FigureChoices())] == [name]
    with pytest.raises(ConfigError, match="did you mean 'heatmap'"):
        list(remade(results, "heatmpa", FigureChoices()))
    with pytest.raises(ConfigError, match="of which there are figures here"):
        list(remade(results, "bias", FigureChoices()))


def test_a_table_has_the_columns_that_are_asked_for(results):
    assert {"cells", "page/exact-match-on-multi"} <= table_list(results, TableChoices()).keys()
    choices = build(TableChoices, {"columns": "model,128,256", "models": "rope", "title": "Mine"})
    table = remade_table(results, "exact-match-on-multi", choices, typeset=True)
    assert list(table.columns) == ["model", "128 †", "256"]
    assert [row[0] for row in table.rows] == ["rope"]
    assert (table.title, table.caption) == ("Mine", "")
    cells = build(TableChoices, {"columns": "model,key_format,accuracy"})
    full = remade_table(results, "cells", cells, typeset=False)
    assert [float(row[2]) for row in full.rows] == [row["accuracy"] for row in all_tables(results)["cells"]]
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        remade_table(results, "cells", build(TableChoices, {"columns": "accurcy"}), typeset=True)
    with pytest.raises(ConfigError, match="did you mean 'reach'"):
        remade_table(results, "raech", TableChoices(), typeset=True)


def test_a_column_has_one_name_in_both_formats(results):
    def columns(names: str, typeset: bool) -> list[str]:
        choices = build(TableChoices, {"columns": names})
        return list(remade_table(results, "cells", choices, typeset).columns)

    for names in ("model,depth,interval,interval of skill", "model,depth,low,high,skill_low,skill_high"):
        assert columns(names, typeset=True) == ["model", "depth", "interval", "interval of skill"]
        assert columns(names, typeset=False) == ["model", "depth", "low", "high", "skill_low", "skill_high"]


PAGES = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
AGAIN = re.compile(r"^lcprobe (figure|table) runs/\w+ ([a-z]\S*) *([^#\n]*)", re.MULTILINE)


def test_every_example_of_the_documentation_makes_a_figure_or_a_table():
    """Of a study with the quickstart's names, each in either format."""
    lengths, names = [128, 256, 512], ("transformerpp", "mamba2", "hybrid")
    cells = plan(["single", "multikey"], lengths=lengths, depths=[0.0, 1.0], n=4)
    facts = study([run(name) for name in names], [task("single"), task("multikey", 4)], cells)
    results = analyse(facts, records({name: window(150) for name in names}, cells))
    help_pages = "\n".join(line.strip() for page in (FIGURE, TABLE) for line in page.splitlines())
    text = "\n".join([*(page.read_text(encoding="utf-8") for page in PAGES), help_pages])
    made = {"figure": 0, "table": 0}
    for kind, name, rest in AGAIN.findall(text):
        words = [word for word in shlex.split(rest) if not word.startswith("names.") and not word.endswith("/")]
        given = read_settings([], words).on({})
        if kind == "figure":
            assert list(remade(results, name, build(FigureChoices, given))), name
        else:
            for typeset in (False, True):
                shown = {"columns": ""} if "columns" not in given else {}
                assert remade_table(results, name, build(TableChoices, given | shown), typeset).rows, rest
        made[kind] += 1
    assert min(made.values()) > 2, made


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"out": "x.jpg"}, ".pdf | .svg | .png | .json"), ({"out": "nowhere/x.pdf"}, "a folder that exists"), ({"width": 5}, "20 .. 4000"), ({"lengths": "a"}, "tokens: 1024"),
        ({"lengths": {"a": 1}}, "tokens: 1024"), ({"title": "a\nb"}, "one line"), ({"widht": 3}, "did you mean 'width'"),
    ],
)  # fmt: skip
def test_mistaken_choices_are_one_line(given, words):
    with pytest.raises(ConfigError) as caught:
        build(FigureChoices, given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
