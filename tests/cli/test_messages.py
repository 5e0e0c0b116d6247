"""What a mistake on the command line is answered with: one line that says what to do."""

import pytest

from lcprobe.cli.commands import evaluate_main, main, train_main

MISTAKES = [
    (train_main, ["configs/quickstart.yaml", "train.Lr=1"], "train.Lr: an unknown key", "did you mean 'lr'?"),
    (train_main, ["configs/quickstart.yaml", "grid.arch=null", "--plan"], "match.budget: given", "match.budget=null"),
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
