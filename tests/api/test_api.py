"""The Python API on a tiny study: what it gives is what the commands wrote, and what the parts below it compute."""

import csv
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

import lcprobe
from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.errors import ConfigError, DataError
from lcprobe.models.checkpoints.known import facts_about
from lcprobe.models.checkpoints.load import load_published, recognised
from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.tasks.text.tokenizer import load_tokenizer
from tests.charts import ALL, charts
from tests.tiny import write_config

GRID = {"lengths": [1, 2], "depths": 2, "n": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data_settings):
    place = tmp_path_factory.mktemp("api")
    probe = {"grids": [GRID], "while_training": None, "context": {"lengths": [1], "n": 2, "kept": [8]}}
    config = write_config(place, data_settings, train={"context_length": 64, "tokens": 64 * 4 * 4}, probe=probe)
    assert train_main([str(config)]) == 0
    study = place / "runs" / "tiny"
    with pytest.raises(DataError, match="no records"):
        lcprobe.load_study(study).records()
    with charts(ALL):
        assert evaluate_main([str(study)]) == 0
    return study


@pytest.fixture(scope="module")
def study(folder):
    return lcprobe.load_study(folder)


@pytest.fixture(scope="module")
def model(study):
    return study.runs["hybrid"].model(device="cpu")


def test_importing_lcprobe_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'pyarrow', 'pandas', 'altair', 'vl_convert', 'lightning'}"
    code = f"import sys, lcprobe; dir(lcprobe); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_every_public_name_is_there():
    for name in lcprobe.__all__:
        assert name in dir(lcprobe)
        assert lcprobe.__getattr__(name) is not None if name != "__version__" else lcprobe.__version__
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        lcprobe.__getattr__("load")


def test_a_study_is_its_runs_and_its_report(study, folder):
    assert set(study.runs) == {"mamba2", "hybrid"}
    run = study.runs["mamba2"]
    assert run.config.train.context_length == 64
    assert run.status["status"] == "done"
    assert run.metrics()["tokens"].max() == 64 * 4 * 4
    assert lcprobe.load_run(folder / "mamba2").config == run.config
    assert study.records().num_rows == 2 * 2 * 4 * 6  # models, tasks, cells, samples
    assert set(study.context()["model"].to_pylist()) == {"mamba2", "hybrid"}


def test_tables_and_figures_are_those_of_the_report(study, folder):
    tables = study.tables()
    assert set(tables) == {path.stem for path in (folder / "tables").glob("*.csv")}
    with open(folder / "tables" / "cells.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [int(row["k"]) for row in written] == tables["cells"]["k"].tolist()
    assert study.figures().keys() == {path.stem for path in (folder / "figures").glob("*.png")}
    assert all(type(figure).__name__ == "ConcatChart" for figure in study.figures().values())
    assert all(isinstance(sentence, str) for sentence in study.summary())


def test_probing_gives_the_records_of_evaluate(study, model):
    """Same samples, same scores: an episode depends on its factors, not on who asks."""
    task = study.runs["hybrid"].config.probe.tasks["multikey"].written
    result = lcprobe.probe(model, task, lengths=[64, 128], depths=2, n=6)
    mine = result.records.to_pandas().set_index(["length", "depth", "index"])
    theirs = study.records().to_pandas()
    theirs = theirs[(theirs["model"] == "hybrid") & (theirs["task"] == "multikey")]
    theirs = theirs.set_index(["length", "depth", "index"]).loc[mine.index]
    assert (mine["episode"] == theirs["episode"]).all()
    np.testing.assert_allclose(mine["log_likelihood"], theirs["log_likelihood"], rtol=1e-4)
    accuracy = result.accuracy()
    assert accuracy["n"].tolist() == [6] * 4
    assert ((accuracy["low"] <= accuracy["accuracy"]) & (accuracy["accuracy"] <= accuracy["high"])).all()
    with pytest.raises(ConfigError, match="by: .* at least one of task"):
        result.accuracy(by=[])
    whole = result.accuracy(by="task")
    assert whole["accuracy"].item() == pytest.approx(mine["exact"].mean())


def test_generation_is_the_argmax_of_the_logits(model):
    text = model.generate("The value for pine is", max_tokens=4)
    ids = model.encode("The value for pine is").tolist()
    for _ in range(4):
        hidden, _ = model.module.hidden(torch.tensor([ids]))
        ids.append(int(model.module.logits(hidden[0, -1]).argmax()))
    assert text == model.tokenizer.decode(np.array(ids[-4:]))
    both = model.generate(["The value for pine is", "Fellow citizens"], max_tokens=4)
    assert both[0] == text
    first = text[: len(text) // 2 + 1]
    assert model.generate("The value for pine is", max_tokens=4, stop=first) == ""


def test_hidden_states_end_in_the_models_output(model):
    states = model.hidden_states("Fellow citizens of the Senate")
    ids = model.encode("Fellow citizens of the Senate")
    layers, d_model = len(model.module.blocks), model.module.config.d_model
    assert states.shape == (layers + 1, len(ids), d_model)
    with torch.no_grad():
        wanted, _ = model.module.hidden(torch.from_numpy(ids)[None])
        torch.testing.assert_close(model.module.norm(states[-1]), wanted[0])
        torch.testing.assert_close(states[0], model.module.embedding(torch.from_numpy(ids)))


def test_an_extension_is_a_variant_of_the_checkpoint(folder):
    model = lcprobe.load_checkpoint(folder / "hybrid", extend="yarn", factor=2, device="cpu")
    assert model.name == "hybrid+yarn"
    assert model.checkpoint.extension == "yarn"
    with pytest.raises(ConfigError, match="a method that applies to a model given here"):
        lcprobe.load_checkpoint(folder / "mamba2", extend="yarn")


def test_an_exported_model_is_the_same_model_to_evaluate(study, model, folder, tmp_path):
    """Weights, tokenizer, BOS and training length."""
    model = study.runs["mamba2"].model(device="cpu")
    model.export("mamba_ssm", tmp_path / "out")
    exported = load_published(recognised(tmp_path / "out"))
    tokens = torch.from_numpy(model.encode("the grass is green"))[None]
    with torch.no_grad():
        torch.testing.assert_close(exported.hidden(tokens)[0], model.module.hidden(tokens)[0])
    facts = facts_about(tmp_path / "out", None)
    assert (facts.context_length, facts.tokens) == (64, model.checkpoint.tokens)
    assert load_tokenizer(str(tmp_path / "out"), facts.bos).identity == model.tokenizer.identity
    extended = lcprobe.load_checkpoint(folder / "hybrid", extend="yarn", factor=2, device="cpu")
    with pytest.raises(ConfigError, match="extend: given 'yarn'; allowed: a model as trained"):
        extended.export("mamba_ssm", tmp_path / "other")


class LastValue(ProbedModel):
    """Repeats the token that it read last: three methods are a model."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def new_state(self, batch: int, length: int | None = None) -> "Rows":
        return Rows(batch)

    def hidden(self, tokens: Tensor, *, state: "Rows") -> tuple[Tensor, "Rows"]:
        return torch.nn.functional.one_hot(tokens, self.vocab_size).float(), state

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden


class Rows:
    def __init__(self, batch: int):
        self.batch = batch

    def rows(self, index: Tensor) -> "Rows":
        return Rows(len(index))


def test_a_model_of_ones_own_needs_three_methods():
    task = {"type": "niah", "n_keys": 2, "template": "line", "digits": 2}
    result = lcprobe.probe(LastValue(4096), task, tokenizer="shipped", lengths=[96], depths=1, n=4)
    assert result.records["haystack"].to_pylist() == ["noise"] * 4
    assert result.accuracy()["chance"].item() == 0.5


class Short(LastValue):
    max_length = 100


def test_lengths_that_a_model_cannot_read_are_left_out_and_named():
    task = {"type": "niah", "n_keys": 2, "template": "line", "digits": 2}
    result = lcprobe.probe(Short(4096), task, tokenizer="shipped", lengths=[96, 128], depths=1, n=2)
    assert set(result.records["length"].to_pylist()) == {96}
    assert result.notes == ["128 tokens are left out: the model's positions end at 100"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: lcprobe.load_study(f / "hybrid" / "checkpoints"), "folder: .* allowed: a study's folder"),
        (lambda f: lcprobe.load_run(f), "folder: .* allowed: a run's folder"),
        (lambda f: lcprobe.load_checkpoint(f), r"folder: .* allowed: one run: mamba2 \| hybrid"),
        (lambda f: lcprobe.probe(LastValue(10), "niah", lengths=[64]), "tokenizer: given None"),
        (lambda f: lcprobe.probe(LastValue(10), "nia", tokenizer="shipped", lengths=[64]), "did you mean 'niah'"),
        (lambda f: lcprobe.probe(LastValue(10), "niah", tokenizer="shipped", lengths=[8]), "lengths: .* too few"),
        (lambda f: lcprobe.probe(LastValue(10), "niah", tokenizer="shipped", lengths=[128.5]), "lengths: .* whole"),
        (lambda f: lcprobe.probe(LastValue(10), {}, tokenizer="shipped", lengths=64), r"^task\.type: "),
        (lambda f: lcprobe.load_checkpoint(f / "hybrid", extend=["yarn", "pi"]), "extend: .* one method"),
        (lambda f: lcprobe.load_checkpoint(f / "hybrid", factor=4), "factor: given 4"),
        (lambda f: lcprobe.load_checkpoint(f / "hybrid", device="gpu"), "device: given 'gpu'"),
        (lambda f: lcprobe.load_checkpoint(f / "hybrid" / "none"), "folder: .* a checkpoint's folder"),
        (lambda f: lcprobe.load_checkpoint(f / "hybrid").generate("a", stop=""), "stop: given ''"),
        (
            lambda f: lcprobe.probe(lcprobe.load_run(f / "hybrid").model(), "niah", lengths=64, device="cpu"),
            "^device: ",
        ),
    ],
)
def test_mistakes_are_one_line(folder, call, message):
    with pytest.raises(lcprobe.LcprobeError, match=message) as error:
        call(folder)
    assert "\n" not in str(error.value)
