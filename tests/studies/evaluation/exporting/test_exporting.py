"""`lcprobe export` and `lcprobe score`: samples out, outputs back into the store and the report, the same ones once."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from lcprobe.cli.commands import main
from lcprobe.config import parse
from lcprobe.data.prepare import prepare
from lcprobe.files import read_json, write_json
from lcprobe.probing.external.outputs import read_samples
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.store import Store
from lcprobe.studies.evaluation.readers import materials_of
from lcprobe.tasks.text.templates import NAMED_TEMPLATES

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
def exported(tmp_path_factory, data_settings):
    folder = tmp_path_factory.mktemp("exported")
    (folder / "mine.yaml").write_text(yaml.safe_dump({**CONFIG, "data": data_settings}))
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


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


def numbers(folder, low):
    """A corpus of the numbers low .. low + 29 in many orders."""
    generator = np.random.default_rng(low)
    orders = [generator.integers(low, low + 30, 1200).tolist() for _ in range(20)]
    lines = [json.dumps({"text": " ".join(map(str, order))}) + "\n" for order in orders]
    folder.mkdir()
    (folder / "numbers.jsonl").write_text("".join(lines))
    return {"corpus": [str(folder / "numbers.jsonl")], "folder": str(folder / "data"), "held_out": 0.3}


@pytest.fixture(scope="module")
def of_numbers(tmp_path_factory):
    """Exports of one grid with two corpora, which have no number in common."""
    folder, found = tmp_path_factory.mktemp("numbers"), []
    probe = {**CONFIG["probe"], "tasks": {"line": {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}}}
    probe["grids"] = [{"lengths": ["128t"], "depths": 1, "n": 20, "haystack": ["noise"]}]
    for low in (10, 60):
        data = numbers(folder / str(low), low)
        config = {**CONFIG, "data": data, "probe": probe}
        (folder / f"{low}.yaml").write_text(yaml.safe_dump(config))
        assert main(["export", str(folder / f"{low}.yaml"), f"study.folder={folder / 'runs' / str(low)}"]) == 0
        found.append(folder / "runs" / str(low) / "mine" / "export")
    return found, config


def samples_of(export):
    return [s for file in sorted((export / "samples").glob("*.jsonl")) for s in read_samples(file)]


def test_the_samples_are_those_that_are_evaluated(of_numbers):
    """Answers are kept out of the corpus there, whatever the haystack."""
    (low, high), config = of_numbers
    assert all(int(sample.answer) >= 40 for sample in samples_of(low))
    answers = [int(sample.answer) for sample in samples_of(high)]
    assert all(answer < 60 or answer >= 90 for answer in answers)
    assert min(answers) < 40, "with another corpus they are others"
    config = parse(config)
    materials = materials_of(prepare(config.data), config).with_template(NAMED_TEMPLATES["instruction"])
    tasks = TaskSet(config.probe, materials)
    (unit,) = tasks.plan(config.probe.grids, 64).units
    assert [s.factors["episode"] for s in samples_of(high)] == [episode.digest for episode in tasks.episodes(unit)]


def test_models_that_answered_other_questions_are_not_put_together(of_numbers, tmp_path, capsys):
    (low, high), _ = of_numbers
    assert score(low, tmp_path, answers(low, tmp_path / "low.jsonl"), "--model", "low") == 0
    before = files_of(tmp_path / "mine")
    capsys.readouterr()
    right = answers(high, tmp_path / "high.jsonl")
    assert score(high, tmp_path, right, "--model", "high") == 2
    said = capsys.readouterr().err
    assert "its records are of other samples than" in said
    assert said.count("\n") == 1
    assert files_of(tmp_path / "mine") == before
    assert score(high, tmp_path, right, "--model", "low") == 0, "the same model's earlier outputs are replaced"


def test_a_model_that_was_probed_here_is_not_replaced(exported, tmp_path, capsys):
    mine = answers(exported, tmp_path / "out.jsonl")
    assert score(exported, tmp_path, mine, "--model", "theirs") == 0
    rows = [
        {**row, "model": "hybrid", "checkpoint": "0" * 16, "scoring": "teacher_forced"} for row in records(tmp_path)
    ]
    Store(tmp_path / "mine/records").finish("f" * 16, rows, {"name": "hybrid", "checkpoint": "0" * 16})
    before = files_of(tmp_path / "mine")
    capsys.readouterr()
    assert score(exported, tmp_path, mine, "--model", "hybrid") == 2
    assert "--model: given 'hybrid'; allowed: another name" in capsys.readouterr().err
    assert files_of(tmp_path / "mine") == before
    (tmp_path / "mine/records" / f"{'f' * 16}.parquet").unlink()
    report = read_json(tmp_path / "mine/report.json")
    report["study"]["runs"].append({**report["study"]["runs"][0], "name": "hybrid", "checkpoint": "0" * 16})
    write_json(tmp_path / "mine/report.json", report)
    assert score(exported, tmp_path, mine, "--model", "hybrid") == 2, "also where its records are elsewhere"


def test_what_is_refused_leaves_nothing_behind(exported, tmp_path, capsys):
    """A grid that is not the report's, and files that are no outputs."""
    mine = answers(exported, tmp_path / "out.jsonl")
    assert score(exported, tmp_path, mine, "--model", "theirs") == 0
    report = read_json(tmp_path / "mine/report.json")
    report["study"]["expected_cells"].pop()
    write_json(tmp_path / "mine/report.json", report)
    before = files_of(tmp_path / "mine")
    id = json.loads(mine.read_text().split("\n")[0])["id"]
    refused = {
        "deep.json": "[" * 100_000,
        "message.json": json.dumps({"samples": [{"id": id, "output": {"choices": [{"message": None}]}}]}),
        "half.jsonl": json.dumps({"id": id, "output": "\ud800"}),
        "positive.jsonl": json.dumps({"doc": {"id": id}, "resps": [[[5.0, "True"]]]}),
        "good.jsonl": mine.read_text(),
    }
    for name, text in refused.items():
        (tmp_path / name).write_text(text)
        capsys.readouterr()
        assert score(exported, tmp_path, tmp_path / name, "--model", "others") == 2, name
        assert capsys.readouterr().err.count("\n") == 1, name
        assert files_of(tmp_path / "mine") == before, name


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
