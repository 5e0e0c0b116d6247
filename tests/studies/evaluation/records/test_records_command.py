"""`lcprobe records`: counts, queries and files of a study's records, the same as in Python."""

import csv
import json
import sys

import pyarrow.parquet as pq
import pytest

import lcprobe
from lcprobe.cli.commands import main
from lcprobe.errors import DataError
from lcprobe.probing.store import Store, compact, disk
from lcprobe.studies.evaluation.report_inputs import ReportInputs, load_inputs, save_inputs
from tests.analysis.fabricated import plan, run, study, task
from tests.probing.store.rows import facts, fill, record, records_of, units

EVIL = ("=cmd()", " +a", "-x", "@a", "\tb", '"', "a,b", "\n", "", "-3")


@pytest.fixture
def folder(tmp_path):
    """A study with two models and two tasks; its report leaves one unit out."""
    wanted = units()
    fill(Store(tmp_path / "records"), wanted)
    cells = plan(["single", "vt"], lengths=[64, 128], depths=[0.5], n=4)
    reported = [unit for unit, own in wanted.items() if own["part"] == 0]
    save_inputs(
        tmp_path, ReportInputs(study([run("a"), run("b")], [task("single"), task("vt")], cells), reported, [])
    )
    return tmp_path


def test_counts_are_those_of_the_reports_records(folder, capsys):
    assert main(["records", str(folder)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert lines[:2] == [["32", "records"], ["model", "task", "length", "records", "failed", "right", "accuracy"]]
    rows = lcprobe.load_study(folder).records().to_pylist()
    for model, name, length, n, failed, right, accuracy in lines[3:]:
        own = [r["exact"] for r in rows if (r["model"], r["task"], r["length"]) == (model, name, int(length))]
        assert (int(n), int(failed), int(right)) == (len(own), 0, sum(own))
        assert float(accuracy) == pytest.approx(sum(own) / len(own), abs=1e-3)
    assert len(lines) == 3 + 8


def test_all_has_what_the_report_is_not_about_and_controls_are_counted_apart(folder, capsys):
    own = facts("a", "vt", 64, part=7)
    rows = [r | {"control": "no_needle", "status": "oom", "exact": None} for r in records_of(own)]
    Store(folder / "records").finish("more", rows, own)
    assert main(["records", str(folder), "--all", "--task", "vt", "--model", "a"]) == 0
    out = capsys.readouterr().out
    assert "36 records" not in out
    assert "20 records" in out
    (line,) = [line for line in out.splitlines() if "no_needle" in line]
    assert line.split()[-3:] == ["4", "4", "0"], "none of them has a score"


def test_python_and_the_command_have_the_same_records_and_open_no_other_file(folder, tmp_path, monkeypatch):
    opened, read = [], disk.read_all
    monkeypatch.setattr(disk, "read_all", lambda path, *more: opened.append(path.stem) or read(path, *more))
    own = lcprobe.load_study(folder)
    table = own.records(model="a", task=["vt"], length=64, everything=True)
    assert len(opened) == 2
    whole = own.records(everything=True).to_pylist()
    assert table.to_pylist() == [r for r in whole if (r["model"], r["task"], r["length"]) == ("a", "vt", 64)]
    assert len(own.records()) == 32
    out = tmp_path / "some.parquet"
    words = ["--all", "--model", "a", "--task", "vt", "--length", "64", "--parquet", str(out)]
    assert main(["records", str(folder), *words]) == 0
    assert pq.read_table(out).equals(table)


def test_files_have_every_text_and_no_formula(folder, tmp_path):
    own = facts("a", "vt", 256, n=len(EVIL))
    rows = [record("a", "vt", 256, i, prediction=text, log_likelihood=float("-inf")) for i, text in enumerate(EVIL)]
    Store(folder / "records").finish("evil", rows, own)
    at = ["--all", "--length", "256"]
    assert main(["records", str(folder), *at, "--csv", str(tmp_path / "r.csv")]) == 0
    with open(tmp_path / "r.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["prediction"] for row in written] == [
        "'=cmd()", "' +a", "'-x", "'@a", "'\tb", '"', "a,b", "'\n", "", "-3"
    ]  # fmt: skip
    assert [int(row["index"]) for row in written] == list(range(len(EVIL)))
    assert {row["via_distance"] for row in written} == {""}
    assert main(["records", str(folder), *at, "--jsonl", str(tmp_path / "r.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().split("\n")[:-1]]
    assert lines == [r | {"log_likelihood": None} for r in rows]


def test_several_studies_have_a_column(folder, tmp_path, capsys):
    fill(Store(tmp_path / "other" / "records"), units(parts=1))
    out = tmp_path / "both.csv"
    assert main(["records", str(folder), str(tmp_path / "other"), "--csv", str(out)]) == 0
    with open(out, newline="") as file:
        written = [row["study"] for row in csv.DictReader(file)]
    assert {name: written.count(name) for name in written} == {str(folder): 32, str(tmp_path / "other"): 32}
    assert main(["records", str(folder), str(tmp_path / "other")]) == 0
    assert "64 records" in capsys.readouterr().out


def test_sql_over_the_records_alone(folder, tmp_path, capsys):
    pytest.importorskip("duckdb")
    sql = "select model, count(*) as n, sum(exact::int) as hits from records group by model order by model"
    assert main(["records", str(folder), "--sql", sql, "--jsonl", str(tmp_path / "a.jsonl")]) == 0
    answer = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    rows = lcprobe.load_study(folder).records().to_pylist()
    assert answer == [
        {"model": m, "n": 16, "hits": sum(r["exact"] for r in rows if r["model"] == m)} for m in ("a", "b")
    ]
    assert main(["records", str(folder), "--sql", sql]) == 0
    assert "hits" in capsys.readouterr().out
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for refused in (
        f"select * from read_csv('{tmp_path}/secret.csv')",
        f"copy records to '{tmp_path}/out.csv'",
        "select nothing from records",
    ):
        assert main(["records", str(folder), "--sql", refused]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --sql: given ")
        assert error.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def asked(folder, tmp_path, capsys, sql: str, *words: str) -> str:
    assert main(["records", str(folder), "--sql", sql, *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_every_type_and_every_column_of_sql_is_printed_and_written(folder, tmp_path, capsys):
    pytest.importorskip("duckdb")
    big = "170141183460469231731687303715884105727"
    sql = f"select interval 1 day as d, {big}::hugeint h, model, model, 'a'::blob b, ['nan'::double] l, 'inf'::double f from records limit 1"
    printed = asked(folder, tmp_path, capsys, sql)
    assert "1 day" in printed
    assert "model_1" in printed
    for suffix in ("csv", "parquet", "jsonl"):
        asked(folder, tmp_path, capsys, sql, f"--{suffix}", str(tmp_path / f"a.{suffix}"))
    assert pq.read_table(tmp_path / "a.parquet").column_names == ["d", "h", "model", "model_1", "b", "l", "f"]
    row = json.loads((tmp_path / "a.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (row["d"], row["h"], row["l"], row["f"]) == ("1 day", big, [None], None)
    assert row["model"] == row["model_1"]


@pytest.mark.parametrize(
    "sql", ["create table t as select 1", "select 1; select 2", "-- nothing", "insert into records select 1"]
)
def test_sql_is_one_query(folder, sql, capsys):
    pytest.importorskip("duckdb")
    assert main(["records", str(folder), "--sql", sql]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --sql: given ")
    assert error.count("\n") == 1


def test_without_duckdb_sql_is_one_line(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["records", str(folder), "--sql", "select 1"]) == 2
    assert capsys.readouterr().err == (
        "error: --sql: duckdb is not installed; allowed: pip install 'lcprobe[query]'\n"
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "command line: given 'nothing'; allowed: STUDY ..."),
        (["nowhere"], "command line: given 'nowhere'"),
        (["{}", "--tast", "vt"], "command line: given '--tast'"),
        (["{}", "--model"], "--model: nothing given"),
        (["{}", "--model", "c"], "--model: given 'c'; allowed: a | b"),
        (["{}", "--task", "sinle"], "--task: given 'sinle'; allowed: single | vt; did you mean 'single'?"),
        (["{}", "--length", "1k"], "--length: given '1k'; allowed: a number of tokens >= 1"),
        (["{}", "--length", "99"], "--length: given 99; allowed: 64 | 128"),
        (
            ["{}", "--csv", "a", "--jsonl", "b"],
            "command line: given '--csv --jsonl'; allowed: one file and one query",
        ),
        (["compact", "{}/records"], "{}/records: no records"),
        *(
            (["{}", option, "{}"], f"{option}: given '{{}}'; allowed: the name of a file")
            for option in ("--csv", "--parquet", "--jsonl")
        ),
    ],
)
def test_mistakes_are_one_line(folder, capsys, words, error):
    assert main(["records", *(word.format(folder) for word in words)]) == 2
    given = capsys.readouterr().err
    assert given.startswith(f"error: {error.format(folder)}")
    assert given.count("\n") == 1


@pytest.mark.parametrize("again", ["{}/", "{}/../{name}", "{}/link", "{}/reports/small"])
def test_records_of_one_store_are_never_counted_twice(folder, capsys, again):
    """Under another spelling, behind a link, and by a report about some of them."""
    (folder / "link").symlink_to(folder)
    own, cells = Store(folder / "records").units()[:3], plan(["vt"], lengths=[64], depths=[0.5], n=4)
    inputs = ReportInputs(study([run("a")], [task("vt")], cells), own, [], home="../..")
    save_inputs(folder / "reports" / "small", inputs)
    other = again.format(folder, name=folder.name)
    assert main(["records", str(folder), "--all", other]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: command line: ")
    assert error.endswith("again; allowed: each study once, by itself or by one of its reports\n")


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_whole_is_counted_and_written_and_the_rest_is_named(folder, tmp_path, capsys, packed):
    """The command that makes records is named: this one again would do nothing. (A pack of two units of one row group,
    damaged there, loses both.)"""
    own = lcprobe.load_study(folder)
    (folder / "study.yaml").write_text("{}")
    if packed:
        compact(Store(folder / "records"))
    store, whole = Store(folder / "records"), own.records()
    reported = load_inputs(folder).record_units
    place = store.packs.find(reported[0]) if packed else None
    path = store.path(reported[0]) if place is None else place.path
    lost = [unit for unit in reported if unit == reported[0] or (packed and unit in store.packs.units_of(path))]
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(raw)
    out = tmp_path / "whole.jsonl"
    for words, why in ((["--jsonl", str(out)], "set aside as"), ([], "set aside as damaged before, or removed")):
        assert main(["records", str(folder), *words]) == 2
        said = capsys.readouterr()
        n = len(whole) - 4 * len(lost)
        assert f"{n} rows" in said.out if words else f"{n} records" in said.out
        assert said.err.startswith(
            f"error: {folder}: without {len(lost)} of 8 units of records, which are not there ("
        )
        assert why in said.err
        assert said.err.endswith(f"); allowed: python evaluate.py {folder}, which does them again\n")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == n
    assert all(row in whole.to_pylist() for row in rows)
    with pytest.raises(DataError, match="without"):
        own.records()


def test_compact_changes_no_answer(folder, capsys):
    own = lcprobe.load_study(folder)
    before = own.records()
    assert main(["records", "compact", str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}: 16 units in packs, 16 -> 4 files, ")
    assert own.records().equals(before)
    assert len(own.records(model="b", everything=True)) == 32
    claim = Store(folder / "records").claim("group")
    assert main(["records", "compact", str(folder)]) == 6
    claim.release()
