"""What a mistake on the command line is answered with: one line that says what to do."""

import re
from importlib.util import find_spec

import pytest
import yaml

from lcprobe.cli.commands import evaluate_main, main, train_main
from lcprobe.tasks.presets import PRESETS

MISTAKES = [
    (train_main, ["configs/quickstart.yaml", "train.Lr=1"], "train.Lr: an unknown key", "did you mean 'lr'?"),
    (
        train_main,
        ["configs/quickstart.yaml", "grid.arch=null", "--plan"],
        "match.budget: 'mamba2' names no model",
        "match.budget=null",
    ),
    (train_main, ["configs/study/large.yaml"], "model: no model to train in configs/study/large.yaml", "evaluate.py"),
    (train_main, ["configs/probe/long.yaml", "--plan"], "model: no model to train", "goes on top"),
    (evaluate_main, ["runs/of-no-study"], "runs/of-no-study", "train.py writes the folder of a study"),
    (main, ["--help", "study.wandb"], "--help: given 'study.wandb'", "allowed"),
    (train_main, ["--help", "study.wandb"], "--help study lists its keys", "did you mean 'track.wandb'?"),
]


@pytest.mark.parametrize(("command", "words", "what", "remedy"), MISTAKES)
def test_a_mistake_is_one_line_with_its_remedy(command, words, what, remedy, capsys):
    assert command(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert what in line
    assert remedy in line


def test_a_layer_that_does_not_work_here_has_a_page(capsys):
    assert main(["--help", "fla:GatedDeltaNet"]) == 0
    assert "mixer fla:GatedDeltaNet: a layer of flash-linear-attention" in capsys.readouterr().out


@pytest.mark.skipif(find_spec("fla") is None, reason="pip install flash-linear-attention")
def test_a_layer_that_fla_does_not_have_has_no_page(capsys):
    assert main(["--help", "fla:GatedDeltaNett"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --help: given 'fla:GatedDeltaNett'; allowed: ")
    assert line.endswith("did you mean 'fla:GatedDeltaNet'?")


def test_presets_are_printed_as_they_are_written_in_a_config(capsys):
    """The list and the page: every mapping is YAML, and makes the preset's task."""
    assert main(["--help", "presets"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    found = dict(re.findall(r"(ruler/\w+) (\{.*?\})(?= ruler/|$)", text))
    assert {name: yaml.safe_load(flow) for name, flow in found.items()} == PRESETS
    assert main(["--help", "ruler/vt"]) == 0
    (written,) = re.findall(r"a task with settings, (\{.*\})", capsys.readouterr().out)
    assert yaml.safe_load(written) == PRESETS["ruler/vt"]
