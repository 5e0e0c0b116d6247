"""A study from end to end: plan, train, probe, report; the same numbers when repeated; W&B runs read back."""

import csv
import functools
import json
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lcprobe.api.studies import load_study
from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.files import digest_file, read_json
from lcprobe.locks import process_tag
from lcprobe.studies.tracking import read_metrics
from lcprobe.studies.tracking.log_file import read_log
from tests.charts import ALL, charts
from tests.tiny import write_config


@pytest.fixture(scope="module")
def study(tmp_path_factory, data_settings):
    """The tiny study, trained and probed, with an offline W&B run for each run and the probe."""
    folder = tmp_path_factory.mktemp("study")
    config = write_config(folder, data_settings, track={"wandb": "offline"})
    assert train_main([str(config)]) == 0
    with charts(ALL):
        assert evaluate_main([str(folder / "runs" / "tiny")]) == 0
    return folder / "runs" / "tiny"


def test_every_run_folder_suffices_to_reproduce_the_run(study):
    digests = set()
    for name in ("mamba2", "hybrid"):
        run = study / name
        status = read_json(run / "status.json")
        assert status["status"] == "done"
        assert status["tokens"] == 64 * 4 * 24
        assert status["versions"]["torch"]
        digests.add(status["data_digest"])
        resolved = yaml.safe_load((run / "config.yaml").read_text())
        assert resolved["study"]["run"] == name
        assert resolved["grid"] == {}
        assert isinstance(resolved["model"]["d_model"], int)
        assert len(list((run / "checkpoints").glob("step-*"))) == 2
    assert len(digests) == 1, "both models saw the same tokens in the same order"


def test_metrics_have_losses_and_probes(study):
    rows = read_metrics(study / "hybrid" / "metrics.csv")
    assert len([r for r in rows if "train/loss" in r]) == 24
    probes = [r for r in rows if "probe/single@64" in r]
    assert len(probes) == 6  # every fifth of 24 steps, and the last
    assert all("tokens" in r for r in rows)
    assert all(0 <= r["probe/single@64/depth0.5"] <= 1 for r in probes)


def test_report_and_tables_are_there_and_count_every_question(study):
    page = (study / "report.html").read_text()
    assert page.count("default-src &#39;none&#39;") == 1
    with open(study / "tables" / "cells.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    assert {c["model"] for c in cells} == {"mamba2", "hybrid"}
    records = list((study / "records").glob("*.parquet"))
    assert len(records) == 2 * (2 * 2 + 2 * 4)
    assert len(list((study / "figures").glob("*.png"))) >= 6


def test_repeating_the_commands_changes_nothing_and_trains_nothing(study, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in (study / "records").iterdir()}
    cells = (study / "tables" / "cells.csv").read_text()
    dead = process_tag().rpartition("-")[0] + "-1"  # a process of another start: its number came back
    left = [study / "records" / "0123456789abcdef.journal", study / f".report.html.{dead}.tmp"]
    left += [study / "mamba2" / f".status.json.{dead}.tmp", study / "records" / f".a.parquet.{dead}.tmp"]
    for path in left:
        path.write_text("of a command that was killed")
    assert train_main([str(study / "study.yaml")]) == 0
    assert evaluate_main([str(study)]) == 0
    assert {p.name: p.stat().st_mtime_ns for p in (study / "records").iterdir()} == before
    assert (study / "tables" / "cells.csv").read_text() == cells
    assert not any(path.exists() for path in left)
    printed = capsys.readouterr()
    assert printed.err.count("already done") == 2
    assert "data digest" not in printed.out, "a finished run is named once"


def test_a_run_records_what_it_was_asked_and_could_see_and_on_a_later_visit_where_that_is_missing(study):
    with open(study / "tables" / "training_data.csv", newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"mamba2", "hybrid"}
    path = study / "mamba2" / "training_data.json"
    written = path.read_bytes()
    assert [float(rows["mamba2"][f"visible_{5 * i}"]) for i in range(21)] == read_json(path)["visible"]
    assert max(read_json(path)["visible"]) == 64
    assert 30 < max(read_json(path)["needle_distances"]) < 64
    path.unlink()
    assert train_main([str(study / "study.yaml")]) == 0
    assert path.read_bytes() == written, "the same without training"


@pytest.mark.slow
def test_a_run_on_short_documents_that_was_asked_near_by_with_a_schedule_is_reported_as_that(tmp_path, data_settings):
    text = tmp_path / "pages"
    text.mkdir()
    for i in range(400):
        (text / f"{i}.txt").write_text(f"The {i}th river runs to the sea past mill and meadow {i}.")
    data = {**data_settings, "corpus": [str(text)], "folder": str(tmp_path / "data")}
    task = {"type": "niah", "n_keys": 1, "template": "line", "digits": 4}
    data |= {"recipes": {"near": {"task": task, "distance": "recent"}}}
    data |= {"mixture": [{"lm": 0.5, "episodes": {"near": 1}}]}
    train = {"length_schedule": [{"until": 0.5, "length": "32t"}, {"length": 1}]}
    config = write_config(tmp_path, data, train=train, model={"layout": "mamba2"}, match={"budget": None}, grid={})
    assert train_main([str(config)]) == 0
    assert evaluate_main([str(tmp_path / "runs" / "tiny")]) == 0
    report = read_json(tmp_path / "runs" / "tiny" / "report.json")
    (facts,) = report["study"]["runs"]
    assert facts["length_schedule"] == "32 until 0.5, then 64"
    assert facts["training_data"]["visible"][10] < 32
    assert facts["training_data"]["needle_distances"][19] < 32
    page = (tmp_path / "runs" / "tiny" / "report.html").read_text()
    for words in ("Short pieces of text: half of", "Rarely asked far back: 95", "32 until 0.5, then 64"):
        assert words in page


def test_a_single_run_and_a_checkpoint_can_be_probed(study, capsys, tmp_path):
    grid = "probe.grids=[{tasks: [single], lengths: [1], depths: 1, n: 3}]"
    for folder in (study / "mamba2", max((study / "mamba2" / "checkpoints").glob("step-*"))):
        assert evaluate_main([str(folder), grid, "track.wandb=off"]) == 0
        assert str(study / "mamba2" / "report.html") in capsys.readouterr().out
    before = sorted(path.name for path in (study / "hybrid").rglob("*"))
    elsewhere = ["study.name=mine", f"study.folder={tmp_path}", "track.wandb=off"]
    assert evaluate_main([str(study / "hybrid"), grid, *elsewhere]) == 0  # a run that may be somebody else's
    assert (tmp_path / "mine" / "report.html").is_file()
    assert sorted(path.name for path in (study / "hybrid").rglob("*")) == before
    capsys.readouterr()
    assert evaluate_main([str(study / "mamba2"), str(study / "hybrid"), grid]) == 2
    assert "study.name" in capsys.readouterr().err
    given = [study / "mamba2", study / "hybrid"]
    before = [sorted(path for path in folder.rglob("*")) for folder in given]
    both = [*map(str, given), grid, "track.wandb=off"]
    assert evaluate_main([*both, "study.name=both"]) == 0
    assert (study.parent / "both" / "report.html").is_file(), "beside the study of the first one"
    assert evaluate_main([*both, "study.name=other", f"study.folder={tmp_path / 'elsewhere'}"]) == 0
    assert (tmp_path / "elsewhere" / "other" / "report.html").is_file()
    assert [sorted(path for path in folder.rglob("*")) for folder in given] == before
    capsys.readouterr()
    assert evaluate_main([*both, "study.name=hybrid", f"study.folder={study}"]) == 2
    assert "a name that none of the given folders has" in capsys.readouterr().err


def test_another_question_overwrites_no_report_and_probes_nothing_twice(study, tmp_path):
    run = tmp_path / "mamba2"
    shutil.copytree(study / "mamba2", run, ignore=shutil.ignore_patterns("re*", "figures", "tables", "context"))
    small, other = (f"probe.grids=[{{tasks: [single], lengths: {x}, depths: 1, n: 3}}]" for x in ("[1]", "[1, 2]"))
    quiet = ["track.wandb=off", "probe.context=null"]
    assert evaluate_main([str(run), small, *quiet]) == 0
    first, records = (run / "report.html").read_bytes(), set((run / "records").glob("*"))
    assert evaluate_main([str(run), small, "study.name=named", *quiet]) == 0
    assert set((run / "records").glob("*")) == records
    assert evaluate_main([str(run), other, *quiet]) == 0
    assert records < set((run / "records").glob("*"))
    folders = sorted(path.name for path in (run / "reports").iterdir())
    assert (len(folders), folders[0]) == (2, "named")
    assert folders[1].startswith("single-")
    assert (run / "report.html").read_bytes() == first
    assert len(load_study(run / "reports" / folders[1]).records()) == 6
    assert read_json(run / "report.json")["question"]["models"] == ["."]
    assert "<h1>named</h1>" in (run / "reports" / "named" / "report.html").read_text()


def test_a_probe_plan_prints_detectable_differences_and_writes_nothing(study, capsys):
    before = sorted(p.name for p in study.rglob("*"))
    assert evaluate_main([str(study), "--plan", "probe.grids=[{tasks: [multikey], lengths: [0.25, 1], n: 400}]"]) == 0
    out = capsys.readouterr().out
    assert "2 models x 5 cells, 2,000 episodes and 128,000 tokens per model" in out
    assert "smallest detectable difference" in out
    assert "16 tokens are too few" in out
    assert sorted(p.name for p in study.rglob("*")) == before


EXTENDED = [
    "probe.grids=[{tasks: [single], lengths: [1, 2], depths: 1, n: 3}]", "probe.context={lengths: [1, 2], n: 2, kept: [8]}",
    "pe.extend=[pi, {type: yarn, ramp: rotations, factor: 4}, window]", "track.wandb=off",
]  # fmt: skip


def test_methods_are_variants_on_the_same_episodes_and_change_no_checkpoint(study, capsys, tmp_path):
    name = ["study.name=extended", f"study.folder={tmp_path}"]
    folders = [str(study / "mamba2"), str(study / "hybrid")]
    before = {p: digest_file(p) for p in study.rglob("*.safetensors")}
    assert evaluate_main([*folders, *EXTENDED, *name, "--plan", "--full"]) == 0
    plan = capsys.readouterr().out
    assert "5 variants of 2 models x 2 cells" in plan
    assert "variant: hybrid+yarn(ramp=rotations,factor=4)" in plan
    assert plan.count("on mamba2: it has no rotary layer") == 2
    assert not (tmp_path / "extended").exists()
    assert evaluate_main([*folders, *EXTENDED, *name]) == 0
    assert {p: digest_file(p) for p in study.rglob("*.safetensors")} == before

    def rows():
        tables = [pq.read_table(p) for p in (tmp_path / "extended" / "records").glob("*.parquet")]
        return pa.concat_tables(tables).to_pylist()

    methods = {(r["model"], r["length"]): (r["extension"], r["factor"]) for r in rows()}
    label = "yarn(ramp=rotations,factor=4)"
    assert methods == {
        ("mamba2", 64): ("none", 1.0), ("mamba2", 128): ("none", 1.0),
        ("hybrid", 64): ("none", 1.0), ("hybrid", 128): ("none", 1.0),
        ("hybrid+pi", 64): ("pi", 1.0), ("hybrid+pi", 128): ("pi", 2.0),
        (f"hybrid+{label}", 64): (label, 4.0), (f"hybrid+{label}", 128): (label, 4.0),
        ("hybrid+window", 64): ("window", 1.0), ("hybrid+window", 128): ("window", 2.0),
    }  # fmt: skip
    scores = {}
    for r in rows():
        scores.setdefault((r["length"], r["index"], r["episode"]), {})[r["model"]] = r["log_likelihood"]
    assert len(scores) == 2 * 3, "the same episodes in every column"
    for (length, _, _), of in scores.items():
        assert (of["hybrid+pi"] == of["hybrid"]) == (length == 64), (
            "as trained inside the training length, not beyond"
        )
        assert of[f"hybrid+{label}"] != of["hybrid"]
    page = (tmp_path / "extended" / "report.html").read_text()
    assert "Gain over the model as trained" in page
    assert "The factor follows the length of the whole sequence (pe.factor=auto): hybrid+pi, hybrid+window." in page
    n = len(list((tmp_path / "extended" / "records").glob("*.parquet")))
    assert evaluate_main([*folders, *EXTENDED, *name, "pe.factor=8"]) == 0
    assert len(list((tmp_path / "extended" / "records").glob("*.parquet"))) == n + 4  # pi and window at two lengths


def test_a_method_that_applies_to_no_model_is_refused_before_anything_is_written(study, capsys, tmp_path):
    before = sorted(study.rglob("*"))
    for given, key, words in (
        ("yarn", "pe.extend", "it has no rotary layer"),
        ("{type: yarn, rampp: dim}", "pe.extend.rampp", "did you mean 'ramp'"),
        ("{type: self_extend, group: 0}", "pe.extend.group", ">= 1 or null"),
    ):
        assert evaluate_main([str(study / "mamba2"), f"pe.extend={given}"]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert key in line
        assert words in line
    assert evaluate_main([str(study / "hybrid"), "pe.extend=longrope"]) == 2
    assert "searched at one length" in capsys.readouterr().err
    assert sorted(study.rglob("*")) == before


def test_a_damaged_checkpoint_is_not_probed(study, capsys, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(max((study / "mamba2" / "checkpoints").glob("step-*")), copy)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert evaluate_main([str(copy)]) == 5
    assert "model.safetensors does not match its digest" in capsys.readouterr().err


@functools.cache
def inspect(folder, summary=False):
    """An offline W&B run as W&B's own command reads it: its records, or what they come to."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *(["--summary"] if summary else [])]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if summary else [json.loads(line) for line in done.stdout.splitlines()]


def rows_of(records):
    """The rows of an offline run's history."""
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def ids_of(folder):
    """The folders of offline runs by their ids."""
    return {path.name.split("-", 3)[3]: path for path in (folder / "wandb").glob("offline-run-*")}


@pytest.mark.parametrize("name", [pytest.param("mamba2", marks=pytest.mark.slow), "hybrid"])
def test_wandb_has_one_run_for_each_model_and_the_newest_folder_is_whole(study, name):
    (id, before), after = *ids_of(study / name).items(), ids_of(study)[next(iter(ids_of(study / name)))]
    trained, probed = inspect(before), inspect(after)
    for records in (trained, probed):
        run = next(record["run"] for record in records if record["type"] == "run")
        assert (run["run_id"], run["display_name"]) == (id, f"tiny/{name}")
        assert (run["run_group"], run["job_type"]) == ("tiny", "train")
        assert run["config"]["update"]["axis/arch"] == name
        assert run["config"]["update"]["train"]["lr"] == 0.01
        assert next(record["exit"] for record in records if record["type"] == "exit")["exit_code"] == 0
    tracked = [[row for row in rows_of(records) if "tokens" in row] for records in (trained, probed)]
    assert [row["tokens"] for row in tracked[0]] == [
        row["tokens"] for row in read_metrics(study / name / "metrics.csv")
    ]
    own = {"_runtime", "_timestamp"}
    assert [{k: v for k, v in row.items() if k not in own} for row in tracked[0]] == [
        {k: v for k, v in row.items() if k not in own} for row in tracked[1]
    ]
    curve = [row for row in rows_of(probed) if "eval/length" in row]
    assert [row["eval/length"] for row in curve] == [64, 128]
    names = {name for row in curve for name in row if name.startswith("eval/")}
    assert names == {"eval/length", "eval/single/accuracy", "eval/multikey/accuracy"}, "controls have one length"


@pytest.mark.slow
def test_a_second_question_leaves_a_folder_of_wandb_with_the_results_of_both(study, tmp_path):
    """Offline the newest folder alone is sent: it has to have the first question's, whose report is kept."""
    copy, before = tmp_path / "copy", sorted((study / "wandb").glob("offline-run-*"))
    shutil.copytree(study, copy)
    first = {inspect(path, summary=True)["name"]: inspect(path, summary=True)["summary"] for path in before}
    other = "probe.grids=[{tasks: [multikey], lengths: [1, 4], depths: 3, n: 4}]"
    assert evaluate_main([str(copy), other, "probe.context=null"]) == 0
    for path in set((copy / "wandb").glob("offline-run-*")) - {copy / "wandb" / old.name for old in before}:
        name = inspect(path, summary=True)["name"]
        if name not in ("tiny/mamba2", "tiny/hybrid"):
            continue
        summary, rows = inspect(path, summary=True)["summary"], rows_of(inspect(path))
        assert {f"eval/{task}" for task in ("single@128", "multikey@64", "multikey@256")} <= set(summary)
        own = {key: value for key, value in first.pop(name).items() if key.startswith(("eval/", "train/final"))}
        assert own.items() <= summary.items(), "the study's own question keeps its names"
        assert summary["eval/multikey@256/n"] == 12 != summary["eval/multikey@64/n"]
        assert [row["eval/length"] for row in rows if "eval/length" in row] == [64, 128, 256]
        assert sum("train/loss" in row for row in rows) == 24
        logged = read_log(next(path.glob("*.wandb")))
        assert logged.exit_code == 0
        assert logged.losses == {row["tokens"]: row["train/loss"] for row in rows if "train/loss" in row}
        own = {key for row in (*rows, summary) for key in row if not key.startswith("_")}
        assert {key for key in logged.names if not key.startswith("_")} == own
    assert list(first) == ["tiny/probe"]


def test_what_an_evaluation_says_has_one_name_for_all_models(study):
    summaries = [inspect(folder, summary=True) for folder in ids_of(study).values()]
    of_models = [one["summary"] for one in summaries if one["name"] != "tiny/probe"]
    assert len(of_models) == 2
    names = [{name for name in one if name.startswith("eval/")} for one in of_models]
    assert names[0] == names[1]
    for name in ("eval/multikey@64", "eval/single@128", "eval/multikey/wrong_key@64"):
        assert {name, f"{name}/low", f"{name}/high", f"{name}/n"} <= names[0]
    assert "eval/multikey/chance" in names[0]
    assert not any(name.endswith("/accuracy") for name in names[0]), "the last point of a curve is no result"
    rows = list(csv.DictReader((study / "tables" / "cells.csv").read_text().splitlines()))
    mine = [
        r for r in rows if (r["model"], r["task"], r["control"], r["length"]) == ("hybrid", "single", "none", "64")
    ]
    hybrid = next(one["summary"] for one in summaries if one["name"] == "tiny/hybrid")
    assert hybrid["eval/single@64"] == sum(int(r["k"]) for r in mine) / sum(int(r["n"]) for r in mine)
    assert hybrid["eval/single@64/n"] == sum(int(r["n"]) for r in mine)
    assert hybrid["train/final_loss"] > 0


def test_the_report_is_in_the_run_of_the_study(study):
    with charts(ALL):
        assert evaluate_main([str(study)]) == 0  # other tests may have written the report since, untracked
    folder = next(path for path in ids_of(study).values() if inspect(path, summary=True)["name"] == "tiny/probe")
    kinds = {
        path.parent.parent.name if path.parent.name == "report" else path.parent.name
        for path in folder.rglob("media/**/*.*")
    }
    assert {"images", "table", "html"} <= kinds
    (page,) = folder.rglob("media/**/*.html")
    assert page.read_text() == (study / "report.html").read_text()
    assert not any(name.startswith("eval/") for row in rows_of(inspect(folder)) for name in row)


def test_a_broken_wandb_does_not_stop_a_run(tmp_path, data_settings, monkeypatch, caplog):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **k: (_ for _ in ()).throw(OSError("no space")))
    config = write_config(tmp_path, data_settings, track={"wandb": "offline"}, train=SHORT, grid=ONE)
    assert train_main([str(config)]) == 0
    assert read_metrics(tmp_path / "runs" / "tiny" / "mamba2" / "metrics.csv")


SHORT = {"context_length": 64, "tokens": 64 * 4 * 6, "batch_tokens": 256, "threads": 1, "log_every": 1}
ONE = {"arch": {"mamba2": {"model": {"layout": "mamba2 x 2"}}}}
