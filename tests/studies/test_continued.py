"""Continued training at a longer length, from end to end: three architectures at 64 tokens and, from there with YaRN,
at 256, in one report."""

import csv
import shutil

import pytest
import torch

import lcprobe
from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.errors import ConfigError
from lcprobe.files import digest_file, read_json
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.extend.rotary import YaRN, YaRNConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.studies.training import train_run
from lcprobe.training.checkpoint import load_model
from tests.tiny import write_config

pytestmark = pytest.mark.slow

ARCH = {
    "transformerpp": {"model": {"layout": "attention+mlp x 2", "positional": "rope"}},
    "hybrid": {"model": {"layout": "attention+mlp, mamba2", "positional": "rope"}},
    "mamba2": {"model": {"layout": "mamba2 x 2"}},
}
LENGTH = {
    "L64": {"train": {"context_length": 64}},
    "L256": {"train": {"context_length": 256, "from": "L64", "extend": "yarn"}},
}
IDS = torch.randint(0, 512, (2, 300), generator=torch.Generator().manual_seed(0))
TASKS = {"single": {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}}


def config_of(folder, data_settings, arch):
    return write_config(
        folder, data_settings, grid={"length": LENGTH, "arch": arch}, match={"budget": None, "refuse_above": 0.99},
        model={"d_ff": 16, "vocab_size": None},
        train={"context_length": 64, "tokens": 256 * 6, "batch_tokens": 256, "checkpoint_every": 512, "keep": 3},
        probe={"tasks": TASKS, "context": None, "while_training": None,
               "grids": [{"lengths": ["64t", "256t"], "depths": 1, "n": 3}]},
    )  # fmt: skip


@torch.no_grad()
def logits(model):
    return model.logits(model.hidden(IDS)[0])


@pytest.fixture(scope="module")
def study(tmp_path_factory, data_settings):
    """The study, trained and probed, and the logits of each model at the end of its training."""
    folder, ends = tmp_path_factory.mktemp("continued"), {}
    with pytest.MonkeyPatch.context() as patch:
        plain = train_run.fit

        def fit(config, model, mixture, where, **rest):
            module = plain(config, model, mixture, where, **rest)
            ends[where.name] = logits(module.model.eval().cpu())
            return module

        patch.setattr(train_run, "fit", fit)
        config = config_of(folder, data_settings, ARCH)
        assert train_main([str(config)]) == 0
    runs = folder / "runs" / "tiny"
    assert evaluate_main([str(runs)]) == 0
    return config, runs, ends


def test_both_lengths_are_rows_of_one_report(study):
    _, runs, ends = study
    assert set(ends) == {f"{length}-{arch}" for length in LENGTH for arch in ARCH}
    with open(runs / "tables" / "models.csv", newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(ends)
    for arch in ARCH:
        row = rows[f"L256-{arch}"]
        assert row["started_from"] == f"L64-{arch}"
        assert row["trained_extension"] == ("" if arch == "mamba2" else "yarn(factor=4)")
        assert int(row["tokens_before"]) == int(row["tokens"]) == 256 * 6
        assert rows[f"L64-{arch}"]["started_from"] == ""
    with open(runs / "tables" / "cells.csv", newline="") as file:
        cells = {(row["model"], int(row["length"])) for row in csv.DictReader(file)}
    assert cells == {(name, length) for name in rows for length in (64, 256)}
    page = (runs / "report.html").read_text()
    assert "L256-transformerpp from L64-transformerpp with yarn(factor=4) (3,072 tokens in total)" in page
    assert "L256-mamba2 from L64-mamba2 without an extension" in page


@pytest.mark.parametrize("arch", ARCH)
def test_a_loaded_run_gives_the_logits_of_the_end_of_its_training(study, arch):
    _, runs, ends = study
    loaded = lcprobe.load_checkpoint(runs / f"L256-{arch}", device="cpu")
    assert torch.equal(logits(loaded.module), ends[f"L256-{arch}"])
    assert loaded.name == f"L256-{arch}", "the extension is part of the model as trained"
    source = lcprobe.load_checkpoint(runs / f"L64-{arch}", device="cpu").module
    assert torch.equal(logits(source), ends[f"L64-{arch}"])
    checkpoint = max((runs / f"L256-{arch}" / "checkpoints").glob("step-*"))
    plain = LanguageModel(loaded.config.model)
    load_model(checkpoint, plain)
    assert torch.equal(logits(plain.eval()), ends[f"L256-{arch}"]) == (arch == "mamba2"), "weights alone are not it"
    if arch != "mamba2":
        oracle = extended(plain, YaRN(YaRNConfig()), ExtensionContext(64, 4.0))
        assert torch.equal(logits(oracle), ends[f"L256-{arch}"])


def test_methods_for_encodings_are_left_out_where_one_was_trained(study, capsys):
    _, runs, _ = study
    with pytest.raises(ConfigError, match=r"yarn on L256-hybrid: it was trained with yarn\(factor=4\)"):
        lcprobe.load_checkpoint(runs / "L256-hybrid", extend="yarn", factor=2.0)
    lcprobe.load_checkpoint(runs / "L256-hybrid", extend={"type": "dt_scale", "scale": 0.5}, factor=2.0)
    assert evaluate_main([str(runs), "pe.extend=pi", "pe.factor=2", "--plan", "--full"]) == 0
    out = capsys.readouterr().out
    assert "left out: pi on L256-transformerpp: it was trained with yarn(factor=4)" in out
    assert "variant: L64-transformerpp+pi" in out


def test_a_continued_run_resumes_to_the_bit_and_with_its_own_extension_only(study, capsys):
    config, runs, _ = study
    folder = runs / "L256-hybrid"
    steps = sorted((folder / "checkpoints").glob("step-*"))
    wanted = {name: digest_file(steps[-1] / name) for name in ("model.safetensors", "optimizer.safetensors")}
    status = read_json(folder / "status.json")
    for step in steps[1:]:
        shutil.rmtree(step)
    assert train_main([str(config), "grid.length.L256.train.extend=pi"]) == 2
    assert "train.extend" in capsys.readouterr().err
    assert train_main([str(folder / "config.yaml")]) == 0
    assert {name: digest_file(steps[-1] / name) for name in wanted} == wanted
    again = read_json(folder / "status.json")
    assert {k: again[k] for k in ("tokens", "data_digest", "from", "from_tokens", "from_digest")} == {
        k: status[k] for k in ("tokens", "data_digest", "from", "from_tokens", "from_digest")
    }
