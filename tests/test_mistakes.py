"""Mistakes in configs and command lines: exit code 2 and one line that names the key, never a traceback, nothing written."""

import json
import os
import re
from dataclasses import fields

import pytest
import yaml

from lcprobe.cli.arguments import SECTIONS, read_arguments
from lcprobe.cli.commands import data_main, evaluate_main, train_main
from lcprobe.config import Config
from lcprobe.errors import listed

OVERRIDES = [  # (key=value, the key that the message must name, a word of what is allowed or meant)
    ("train.lrr=0.1", "train.lrr", "did you mean 'lr'"),
    ("trian.lr=0.1", "trian", "did you mean 'train'"),
    ("train.lr=fast", "train.lr", "a number"),
    ("train.lr=-1", "train.lr", "> 0"),
    ("train.lr=", "train.lr", "a number"),
    ("train.tokens=1.5", "train.tokens", "a whole number"),
    ("train.tokens=true", "train.tokens", "a whole number"),
    ("train.tokens=10", "train.tokens", ">= batch_tokens"),
    ("train.batch_tokens=100", "train.batch_tokens", "a multiple of"),
    ("train.tokens=99999999999999999999", "train.tokens", "at most 1e+15"),
    ("model.d_model=1e308", "model.d_model", "at most 1e+15"),
    ("model.vocab_size=1e12", "model.vocab_size", "a whole number or null, at most 2147483647"),
    ("model.n_layers=9999999999", "model.n_layers", "solve or null, at most 2147483647"),
    ("model.n_layers=10001", "model.n_layers", "1 .. 10000"),
    ("match.budget=1e308", "match.budget", "at most 1e+15"),
    ("grid.arch.mamba2.model.layout=mamba2 x 9999999999", "model.layout", "more than 10000 layers"),
    ("grid.arch.mamba2.model.layout=[[mamba2 x 999] x 999] x 999", "model.layout", ""),
    ("model.positional=rope x 9999999999", "model.positional", "more than 10000 layers"),
    ("probe.grids[0].lengths=[1e308]", "probe.grids[0].lengths[0]", "a number > 0"),
    ("probe.grids[0].lengths=[99999999999999999999t]", "probe.grids[0].lengths[0]", "tokens (64t"),
    ("model.mixers.mamba2.norm_eps=-1", "model.mixers.mamba2.norm_eps", "> 0"),
    ("model.mixers.mamba2.dt_init_floor=-1", "model.mixers.mamba2.dt_init_floor", "> 0"),
    ("model.mixers.it={type: mamba1, dt_init_floor: 0}", "model.mixers.it.dt_init_floor", "> 0"),
    (
        "model.mixers.it={type: mamba3, definition: softplus, dt_init_floor: 0}",
        "model.mixers.it.dt_init_floor",
        "> 0",
    ),
    (
        "model.mixers.it={type: mlstm, forget_bias_range: [6, 3]}",
        "model.mixers.it.forget_bias_range",
        "first <= last",
    ),
    (
        "model.mixers.attention.window_counts_self=false",
        "model.mixers.attention.window_counts_self",
        "window is null",
    ),
    ("model.mixers.attention.d_conv=1", "model.mixers.attention.d_conv", "0 or >= 2"),
    ("pe.extend=[{type: [pi]}]", "pe.extend[0]", "none | "),
    ("seed=!!binary aGVsbG8=", "seed", "a YAML value"),
    ("model=[1]", "model", "grid.arch=null"),
    ("grid.arch.mamba2.model=[1]", "model", "a mapping with keys"),
    ("grid.arch.mamba2.train=some text", "grid.arch.mamba2.train", "a mapping with keys"),
    ("grid.train=[null, 3]", "grid.train", "a mapping with keys"),
    ("grid.arch.mamba2.data=null", "grid.arch.mamba2.data", "a mapping with keys"),
    ("data.tokenizer=" + "a" * 5000, "data.tokenizer", "a tokenizer.json"),
    ("data.corpus=[" + "a" * 5000 + "]", "data.corpus", "a path of at most 3500 bytes"),
    ("x" * 5000 + "=1", "x" * 300 + "...", "an unknown key"),
    ("study.folder=" + "a/" * 3000, "study.folder", "a path of at most 3500 bytes"),
    ("data.folder=" + "a" * 300, "data.folder", "names of at most 255"),
    ("train.from=" + "a" * 300, "train.from", "names of at most 255"),
    ('train.from="a\\0b"', "train.from", "without NUL"),
    ("train.context_length=-5", "train.context_length", ">= 2"),
    ("train.schedule=cosin", "train.schedule", "did you mean 'cosine'"),
    ("train.warmup=1.5", "train.warmup", "0 <= warmup < 1"),
    ("train.betas=[0.9]", "train.betas", "a list of"),
    ("train.precision=16", "train.precision", "32 | bf16"),
    ("train={lr: 0.1, foo: 1}", "train.foo", "unknown key"),
    ('study.name="a\\n"', "study.name", "letters, digits"),
    ('grid={arch: {"a\\n": {}}}', "grid.arch", "letters, digits"),
    ('data.corpus=["hf:"]', "data.corpus[0].name", "a path"),
    ('data.corpus=["hf::config"]', "data.corpus[0].name", "a path"),
    ('data.corpus=[""]', "data.corpus[0].path", "a path"),
    ('data.corpus=[{type: files, path: " "}]', "data.corpus[0].path", "a path"),
    ('data.tokenizer=""', "data.tokenizer", "a tokenizer.json"),
    ('train.from=""', "train.from", "a path"),
    ('study.folder=""', "study.folder", "a path"),
    ("study.lr_sweep={lrs: [0.1, 0.2], seeds: [-1]}", "study.lr_sweep.seeds", "0 .. 32767"),
    ("study.lr_sweep={lrs: [0.1, 0.2], seeds: [100000]}", "study.lr_sweep.seeds", "0 .. 32767"),
    ("study.lr_sweep={lrs: [0.1, 0.2], seeds: [1, 1]}", "study.lr_sweep.seeds", "each seed once"),
    ("seed=1:30", "seed", "a whole number"),
    ("train.batch_tokens=2147483648", "train.batch_tokens", "a whole number, at most 2147483647"),
    ("train.threads=2147483648", "train.threads", "or null, at most 2147483647"),
    ("train.threads=1025", "train.threads", "1 .. 1024 or null"),
    ("train.context_length=134217729", "train.context_length", "<= 134217728"),
    ("probe.grids[0].depths=1001", "probe.grids[0].depths", "at most 1000"),
    ("model.attn_layer_idx=[3e9]", "model.attn_layer_idx[0]", "at most 2147483647"),
    ("train.tokens=1e16", "train.tokens", "at most 1e+15"),
    ("probe.tasks.multikey={type: niah, n_values: 4097}", "probe.tasks.multikey.n_values", "at most 4096"),
    ("data.recipes.lines.task={type: copying, words: 2147483647}", "data.recipes.lines.task.words", "at most 65536"),
    ("e/nope=1/base.yaml", "config file", "e/nope=1/base.yaml"),
    ("e/nope=1/base", "command line", "e/nope=1/base"),
    ("nope=1", "nope", "unknown key"),
    ("grid.arch.mamba2.model.layout=mamab2 x 2", "model.layout", "did you mean 'mamba2'"),
    ("grid.arch.mamba2.model.layout=attention+mlp y 2", "model.layout", "a pattern such as"),
    ("grid.arch.mamba2.model.layout=3", "model.layout", "text"),
    ("model.layout=mamba2", "model.layout", "grid.arch=null"),
    ("model.d_model=0", "model.d_model", "1 .. 16777216 or null"),
    ("model.d_model=65", "model.mixers.mamba2.head_dim", "a divisor of expand x d_model (130)"),
    ("model.mixers.mamba2.d_stat=4", "model.mixers.mamba2.d_stat", "did you mean 'd_state'"),
    ("model.mixers.mamba2.d_state=big", "model.mixers.mamba2.d_state", "a whole number"),
    ("model.mixers.attention.positional.type=rop", "positional.type", "did you mean 'rope'"),
    ("model.mixers.attention.positional={type: rope, fraction: 0.3}", "positional.fraction", "an even number"),
    ("model.positional=rop", "model.positional", "did you mean 'rope'"),
    ("grid.arch.mamba2.model.positional=rope", "model.positional", "no attention"),
    ("model.positions={type: pose}", "model.positions.max_length", "a whole number"),
    ("model.context_length=1", "model.context_length", "2 .. 134217728 or null"),
    ("train.from=no/such/run", "train.from", "a run folder with a checkpoint"),
    ("train.initial_state={type: pased}", "train.initial_state.type", "did you mean 'passed'"),
    ("train.initial_state={type: passed}", "train.initial_state", "no recurrent layer"),
    ("train.switch={at: 2}", "train.switch.at", "0 < at < 1"),
    ("train.switch={at: 0.5, positional: pope}", "train.switch.positional", "without learned parameters"),
    ("model.mixers.attention.temperature={type: warm}", "temperature", "logn | ssmax"),
    ("model.attn_layer_idx=[7]", "model.attn_layer_idx", "0 .. 1"),
    ("model.vocab_size=100", "model.vocab_size", ">= the tokenizer's 1024"),
    ("kernels.backend=tritn", "kernels.backend", "did you mean 'triton'"),
    ("kernels.backend=flash_attn", "kernels.backend", "auto | "),
    ("match.budget=mambo", "match.budget", "did you mean 'mamba2'"),
    ("match.budget=12", "match.budget", ">= 1000"),
    ("data.corpus=[no/such/folder]", "data.corpus", "an existing folder"),
    ("data.tokenizer=no.json", "data.tokenizer", "a tokenizer.json"),
    ("data.held_out=2", "data.held_out", "0 < held_out < 1"),
    ("data.mixture[1].lm=7", "data.mixture[1].lm", "0 .. 1"),
    ("data.mixture[1].episodes={linez: 1}", "data.mixture[1].episodes", "did you mean 'lines'"),
    ("data.mixture[0].lengths=[0.3]", "data.mixture[0].lengths", "1 / a whole number"),
    ("data.mixture[0].until=0", "data.mixture[0].until", "0.0 < until <= 1"),
    ("data.recipes.lines.task.type=haystack", "data.recipes.lines.task.type", "niah"),
    ("data.recipes.lines.task.n_queries=9", "data.recipes.lines.task.n_queries", "<= n_keys (4)"),
    ("data.recipes.lines.haystack=[essays]", "haystack", "corpus | noise"),
    ("probe.tasks.single.template=verse", "probe.tasks.single.template", "line | sentence"),
    ("probe.tasks.single=ruler/vtt", "probe.tasks.single.type", "did you mean 'ruler/vt'"),
    (
        "probe={tasks: {single: ruler/vtt}, while_training: {tasks: [multikey]}}",
        "probe.tasks.single.type",
        "did you mean 'ruler/vt'",
    ),
    ("probe.grids[0].tasks=[singel]", "probe.grids[0].tasks", "did you mean 'single'"),
    ("probe.grids[0].lengths=[0.3]", "probe.grids[0].lengths", "whole tokens of 128"),
    ("probe.grids[0].depths=0", "probe.grids[0].depths", "a number of strata, such as 3"),
    ("probe.grids[0].depths=[0, 0.5, 1]", "given [0, 0.5, 1]", "a number of strata, such as 3"),
    ("probe.grids[0].value=[emoji]", "probe.grids[0].value", "words | numbers"),
    ("probe.grids[0].n=0", "probe.grids[0].n", "1 .. 1048576"),
    ("probe.scoring=guess", "probe.scoring", "teacher_forced | generate"),
    ("probe.harness.limit=0", "probe.harness.limit", ">= 1 or null"),
    ("probe.harness.max_seq_lengths=[512]", "probe.harness.max_seq_lengths", "each >= 1024"),
    ("probe.harness.max_seq_lengths=[]", "probe.harness.max_seq_lengths", "at least one length"),
    ("probe.frozen.rule=any", "probe.frozen.rule", "auto | all | part"),
    ("probe.frozen.tokens=0", "probe.frozen.tokens", ">= 1 or null"),
    ("pe.factor=0.5", "pe.factor", ">= 1 and <= 65536, or auto"),
    ("pe.factor=1e6", "pe.factor", "<= 65536"),
    ("pe.extend=[pi, {type: yarn, factor: 1e6}]", "pe.extend[1].factor", "<= 65536"),
    ("pe.factor=many", "pe.factor", "a number or auto"),
    ("pe.extend=yarm", "pe.extend", "did you mean 'yarn'"),
    ("pe.extend=[none, rerop]", "pe.extend[1]", "did you mean 'rerope'"),
    ("pe.extend=[pi, {type: yarn, factor: 0}]", "pe.extend[1].factor", ">= 1 and <= 65536, or auto"),
    ("pe.extend=[pi, pi]", "pe.extend", "methods that differ"),
    ("pe.extend=[]", "pe.extend", "at least one"),
    ("pe.extend=4", "pe.extend", "a method's name"),
    ("pe.extend={type: none, factor: 2}", "pe.extend", "none has no settings"),
    ("pe.extend={type: pi, label: a/b}", "pe.extend.label", "letters, digits"),
    ("pe.extent=pi", "pe.extent", "did you mean 'extend'"),
    ("grid.arch.mamba2=5", "grid.arch.mamba2", "a mapping of settings"),
    ("grid.arch=[]", "grid.arch", "a list of values"),
    ("grid.train.lrr=[1,2]", "train.lrr", "did you mean 'lr'"),
    ("grid={seed: [0, 0]}", "grid", "different labels"),
    ("study.name=../../etc", "study.name", "letters, digits"),
    ("study.lr_sweep.lrs=[0.1, 0.01]", "study.lr_sweep.lrs", "ascending"),
    ("train.lr=0.5", "train.lr", "study.tuned_by=null"),
    ("grid.arch.mamba2.train.lr=0.5", "train.lr: given '0.5 for mamba2", "study.tuned_by=null"),
    ("study.tuned_by=", "study.tuned_by: given ''", "a path"),
    ("study.tuned_by=nothing.json", "study.tuned_by", "lr_sweep.json"),
    ("seed=-1", "seed", "0 .. 32767"),
    ("track.wandb=maybe", "track.wandb", "auto | online | offline | off"),
    ("seed=${oc.env:HOME}", "seed", "interpolation"),
    ("seed=${times:2}", "seed", "two numbers or more"),
    ("seed=${times:2,${train.schedule}}", "seed", "two numbers or more"),
    ("seed=${train.lr", "seed", "YAML value"),
]
ARGUMENTS = [
    (["--plam"], "command line", "did you mean '--plan'"),
    (["configs/quickstart.yaml", "--harness", "ruler_vt"], "command line", "--plan | --full | --help"),
    (["no_such.yaml"], "config file", "an existing .yaml file"),
    (["configs/quickstrat.yaml"], "config file", "did you mean 'configs/quickstart.yaml'"),
    (["learning_rate"], "command line", "key=value"),
    ([], "command line", "at least one .yaml file"),
    (["a" * 5000], "command line", "an existing .yaml file"),
    (["a" * 5000 + ".yaml"], "config file", "File name too long"),
    (["--help", "modle"], "--help", "did you mean 'model'"),
]
FILES = {
    "broken.yaml": ("train: {lr: 0.1", "broken.yaml"),
    "list.yaml": ("- a\n- b", "list.yaml"),
    "twice.yaml": ("seed: 1\nseed: 2", "twice.yaml"),
    "tag.yaml": ("seed: !!python/object/apply:os.system ['true']", "tag.yaml"),
    "cycle.yaml": ("seed: ${train.lr}\ntrain: {lr: '${seed}'}", "seed"),
    "target.yaml": ("model: {_target_: os.system}", "model._target_"),
    "bomb.yaml": ("a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [" + ",".join([f"*{chr(97 + i)}"] * 9) + "]\n" for i in range(6)), "bomb.yaml"),
    "text.yaml": ("just words", "text.yaml"),
    "null.yaml": ("train: null", "train"),
}  # fmt: skip


def one_line(code, capsys, key, words=""):
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    assert key in captured.err, captured.err
    assert words in captured.err, captured.err


@pytest.mark.parametrize(("override", "key", "words"), OVERRIDES, ids=[o[0][:50] for o in OVERRIDES])
def test_a_wrong_setting(tmp_path, capsys, override, key, words):
    arguments = ["configs/quickstart.yaml", f"study.folder={tmp_path}/runs", f"data.folder={tmp_path}/data"]
    one_line(train_main([*arguments, override, "--plan"]), capsys, key, words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("arguments", "key", "words"), ARGUMENTS)
def test_a_wrong_command_line(capsys, arguments, key, words):
    one_line(train_main(arguments), capsys, key, words)


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file(tmp_path, capsys, name):
    text, key = FILES[name]
    (tmp_path / name).write_text(text)
    one_line(train_main([str(tmp_path / name), "--plan"]), capsys, key)


def test_bytes_that_are_not_text(tmp_path, capsys):
    (tmp_path / "x.yaml").write_bytes(b"seed: \xff\xfe")
    one_line(train_main([str(tmp_path / "x.yaml")]), capsys, "x.yaml", "UTF-8")


def test_a_huge_file(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text("# " + "x" * (1 << 21))
    one_line(train_main([str(tmp_path / "x.yaml")]), capsys, "x.yaml", "at most")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ([], "command line"),
        (["runs/none"], "command line"),
        (["configs"], "command line"),
        (["configs/quickstart.yaml", "study.name=none"], "study.name"),
        (["--plann"], "command line"),
        (["configs/quickstart.yaml", "--cheat", "probe.policies=[first_distict]"], "did you mean 'first_distinct'"),
        (["--harnes", "ruler_vt"], "did you mean '--harness'"),
        (["configs/quickstart.yaml", "--harness"], "names of lm-eval tasks"),
        (["configs/quickstart.yaml", "--harness", "seed=1", "--frozen", "pyproject.toml"], "--harness"),
        (["configs/quickstart.yaml", "--harness", "ruler_vt", "--plan"], "--plan with --harness"),
        (["--harness", "ruler_vt"], "nothing to probe"),
        (["configs/quickstart.yaml", "--frozen", "no.jsonl"], "--frozen: given 'no.jsonl'"),
        (["configs/quickstart.yaml", "--frozen", "n" * 5000], "--frozen: given 'nnn"),
        (["configs/quickstart.yaml", "study.name=none", "--harness", "ruler_vt"], "study.name"),
    ],
)
def test_evaluate(capsys, arguments, key):
    one_line(evaluate_main(arguments), capsys, key)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepair"], "did you mean 'prepare'"),
        ([], "prepare | tokenizer"),
        (["tokenizer", "x.json", "12"], "at least 300"),
        (["tokenizer", "x" * 200 + ".json", "300"], "names of at most 195"),
        (["prepare", "configs/quickstart.yaml", "data.text_field=3"], "data.text_field"),
    ],
)
def test_data(capsys, arguments, words):
    one_line(data_main(arguments), capsys, "", words)


def test_interpolation_between_keys_works(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"train": {"lr": 0.5, "context_length": "${train.lr}"}}))
    one_line(train_main([str(tmp_path / "x.yaml")]), capsys, "train.context_length", "a whole number")


def test_no_environment_in_configs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SECRET", "hush")
    (tmp_path / "x.yaml").write_text("study: {name: '${oc.env:SECRET}'}")
    code = train_main([str(tmp_path / "x.yaml")])
    captured = capsys.readouterr()
    assert code == 2
    assert "hush" not in captured.err + captured.out


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.tokens=.inf", "train.tokens"),
        ("train.tokens=.nan", "train.tokens"),
        ("train.lr=.inf", "train.lr"),
        ("probe.grids=[{lengths: [.inf]}]", "probe.grids[0].lengths[0]"),
        ("model.mixers.mamba2.dt_limit=[0, .inf]", "model.mixers.mamba2.dt_limit[1]"),
    ],
)
def test_non_finite_numbers_are_refused(tmp_path, capsys, override, key):
    arguments = ["configs/quickstart.yaml", f"study.folder={tmp_path}/runs", f"data.folder={tmp_path}/data"]
    one_line(train_main([*arguments, override, "--plan"]), capsys, key, "number")


@pytest.mark.parametrize("override", ["data.held_out=0.5", "train.tokens=99999", "seed=3", "model.d_model=8"])
def test_how_a_model_was_trained_cannot_be_set_when_it_is_probed(tmp_path, capsys, override):
    one_line(
        evaluate_main([str(tmp_path), override]), capsys, override.split("=")[0].split(".")[0], "as it was trained"
    )


def test_a_config_in_a_folder_with_an_equals_sign_is_a_file(tmp_path):
    folder = tmp_path / "lr=1"
    folder.mkdir()
    for name in ("base.yaml", "BASE.YAML", "v1.yaml"):
        (folder / name).write_text("seed: 1")
    (folder / "study.yaml").mkdir()
    arguments = read_arguments(
        [str(folder / "base.yaml"), str(folder / "BASE.YAML"), str(folder / "study.yaml"), "seed=2.yaml"]
    )
    assert arguments.files == [str(folder / "base.yaml"), str(folder / "BASE.YAML")]
    assert arguments.folders == [folder / "study.yaml"]
    assert arguments.overrides == ["seed=2.yaml"]
    assert read_arguments(["e/lr=1/none.yaml", "lr=1.yaml"]).files == ["e/lr=1/none.yaml", "lr=1.yaml"]
    (folder / "x.jsonl").write_text("")
    lists = read_arguments(["--frozen", str(folder / "x.jsonl"), "seed=1"], (), ("--frozen",)).lists
    assert lists == {"--frozen": [str(folder / "x.jsonl")]}


def test_a_folder_called_like_a_setting_is_none_unless_it_has_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("seed=3", "seed=4", "other=5"):
        (tmp_path / name).mkdir()
    (tmp_path / "seed=4" / "study.yaml").write_text("")
    arguments = read_arguments(["seed=3", "seed=4", "other=5", "study.tuned_by=sweep.yaml"])
    assert arguments.overrides == ["seed=3", "study.tuned_by=sweep.yaml"]
    assert [str(folder) for folder in arguments.folders] == ["seed=4", "other=5"]


def test_settings_begin_with_the_sections_of_the_config():
    assert {*SECTIONS} == {field.name for field in fields(Config)}


@pytest.mark.parametrize("command", [train_main, evaluate_main])
def test_a_pipe_is_no_config(tmp_path, capsys, command):
    os.mkfifo(tmp_path / "f.yaml")
    one_line(command([str(tmp_path / "f.yaml"), "--plan"]), capsys, "f.yaml", "a regular file")


def test_a_list_of_thousands_of_names_is_short(tmp_path, capsys):
    row = {f"field{i}": "x" for i in range(3000)} | {"y" * 10_000: "x"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    arguments = [f"data.corpus=[{tmp_path}/rows.jsonl]", f"data.folder={tmp_path}/data"]
    code = data_main(["prepare", "configs/quickstart.yaml", *arguments])
    err = capsys.readouterr().err
    assert (code, err.count("\n"), "field0 | field1 | " in err, len(err) < 1500) == (2, 1, True, True)
    assert re.search(r" and \d+ more", err)
    names = [f"name{i}" for i in range(100)]
    assert listed(names) == " | ".join(names)
    assert listed(names * 9) == " | ".join((names * 9)[:113]) + " and 787 more"
    assert listed(["a" * 5000]) == "a" * 80 + "..."
    assert (listed([]), listed(["a"]), listed(["a", "b"], ", ")) == ("", "a", "a, b")
