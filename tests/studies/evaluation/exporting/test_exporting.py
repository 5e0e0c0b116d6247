"""`lcprobe export` and `lcprobe score`: samples out, outputs back into the store and the report, the same ones once."""

import json

import pyarrow.parquet as pq
import pytest
import yaml

from lcprobe.cli.commands import main
from lcprobe.files import read_json
from lcprobe.probing.external.outputs import read_samples

CONFIG = {
    "study": {"name": "mine"},
    "train": {"context_length": 64},
    "probe": {
        "tasks": {"line": {"type": "niah", "n_keys": 2, "template": "line", "digits": 3}},
        "grids": [{"lengths": ["96t", "160t"], "depths": 2, "n": 4, "haystack": ["noise"]}],
        "templates": ["instruction"],
    },
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    (folder / "mine.yaml").write_text(yaml.safe_dump(CONFIG))
    assert main(["export", str(folder / "mine.yaml"), f"study.folder={folder / 'runs'}"]) == 0
    return folder / "runs" / "mine" / "export"


def answers(exported, path, wrong=lambda sample: False, left_out=lambda sample: False):
    """A file of right outputs, but for some."""
    samples = [s for file in sorted((exported / "samples").glob("*.jsonl")) for s in read_samples(file)]
    rows = [{"id": s.id, "output": " none" if wrong(s) else s.target + "; and"} for s in samples if not left_out(s)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(exported, folder, *words):
    return main(["score", str(exported), *map(str, words), f"study.folder={folder}"])


def records(folder):
    return [
        row for path in sorted((folder / "mine/records").glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def test_an_export_says_what_its_samples_are(exported):
    manifest = read_json(exported / "export.json")
    assert [unit["samples"] for unit in manifest["units"]] == [8, 8]
    sample = read_samples(exported / "samples" / manifest["units"][0]["file"])[0]
    assert sample.prompt.startswith("You are a helpful assistant.")
    assert sample.prompt.split("\n\n### Response:")[1] == f" {sample.prompt.split()[-1]}"
    assert (sample.factors["template"], sample.factors["length"]) == ("instruction", 96)
    assert sample.factors["episode_tokens"] == 96


def test_outputs_come_back_as_records_and_a_report(exported, tmp_path, capsys):
    out = answers(exported, tmp_path / "out.jsonl", wrong=lambda s: s.factors["length"] == 160)
    assert score(exported, tmp_path, out, "--model", "theirs") == 0
    rows = records(tmp_path)
    assert len(rows) == 16
    assert all(row["exact"] == (row["length"] == 96) for row in rows)
    assert {(r["model"], r["scoring"], r["engine"], r["status"], r["template"]) for r in rows} == {
        ("theirs", "external", "jsonl", "ok", "instruction")
    }
    before = {path.name for path in (tmp_path / "mine/records").glob("*.parquet")}
    assert score(exported, tmp_path, out, "--model", "theirs") == 0
    assert {path.name for path in (tmp_path / "mine/records").glob("*.parquet")} == before
    html = (tmp_path / "mine/report.html").read_text()
    assert "theirs" in html
    assert score(exported, tmp_path, answers(exported, tmp_path / "b.jsonl"), "--model", "others") == 0
    facts = read_json(tmp_path / "mine/report.json")
    assert [run["name"] for run in facts["study"]["runs"]] == ["theirs", "others"]
    assert len(facts["record_units"]) == 4
    capsys.readouterr()


def test_some_outputs_are_named_and_more_of_them_replace_them(exported, tmp_path, capsys):
    some = answers(exported, tmp_path / "some.jsonl", left_out=lambda s: s.factors["index"] == 0)
    assert score(exported, tmp_path, some, "--model", "theirs") == 0
    assert "theirs: 2 of 8 outputs of line-noise-words-numbers-96.jsonl missing" in capsys.readouterr().out
    assert sorted(row["status"] for row in records(tmp_path)) == ["missing"] * 4 + ["ok"] * 12
    assert "4 of 16 queries failed (out of memory, no output)" in (tmp_path / "mine/report.html").read_text()
    assert score(exported, tmp_path, answers(exported, tmp_path / "all.jsonl"), "--model", "theirs") == 0
    inputs = read_json(tmp_path / "mine/report.json")
    assert len(inputs["record_units"]) == 2
    assert not [note for note in inputs["study"]["notes"] if "missing" in note]
    assert "queries failed" not in (tmp_path / "mine/report.html").read_text()


def test_mistakes_are_one_line(exported, tmp_path, capsys):
    stranger = tmp_path / "stranger.jsonl"
    stranger.write_text('{"id": "other/0/0/0", "output": "a"}\n')
    mine = answers(exported, tmp_path / "mine.jsonl")
    for words, message in [
        ([exported, stranger, "--model", "m"], "no output to a sample of"),
        ([tmp_path, mine, "--model", "m"], "no export.json"),
        ([exported, mine], "--model NAME"),
        ([exported, tmp_path / "absent", "--model", "m"], "existing files with outputs"),
        ([exported, mine, "--model", "a/b"], "--model"),
    ]:
        assert main(["score", *map(str, words), f"study.folder={tmp_path / 'none'}"]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1, said
        assert message in said[0]
    config = tmp_path / "chat.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    assert main(["export", str(config), "probe.templates=[chat]", f"study.folder={tmp_path}"]) == 2
    assert "harnesses apply a model's own chat template" in capsys.readouterr().err
    assert main(["export"]) == 2
    assert not (tmp_path / "mine").exists()
