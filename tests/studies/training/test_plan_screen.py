"""The first screen of training: at 80 columns for any number of models, seeds together, nothing lost in the rest."""

import csv

import pytest

from lcprobe.studies import console
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.training.plan_screen import full_lines, plan_table, screen_lines
from tests.tiny import TINY

LONG = "hybrid-with-a-name-that-says-everything-about-it"


def planned(n: int, seeds: int = 1, name: str = LONG, **train):
    """A study of n models with long names and layouts."""
    layouts = ["mamba2 x 2", "attention+mlp, mamba2", "attention+mlp, mamba2, attention, mamba2+mlp"]
    levels = {
        f"{name}-{i}": {
            "model": {"layout": layouts[i % 3], "d_model": 16 + 16 * (i // 3), "d_ff": 16},
            "train": {"lr": 0.01},
        }
        for i in range(n)
    }
    grid = {"arch": levels, **({"seed": list(range(seeds))} if seeds > 1 else {})}
    study = {**TINY["study"], "plan_for": "h100"}
    data = {"mixture": [{"lm": 1}], "recipes": {}}
    model = {k: v for k, v in TINY["model"].items() if k != "d_model"}
    config = {
        **TINY,
        "study": study,
        "data": data,
        "grid": grid,
        "model": model,
        "match": {"budget": None, "allow_mismatch": True},
    }
    plan = make_plan({**config, "train": {**TINY["train"], "tokens": 64 * 4 * 24 + 7, **train}})
    return plan, plan_table(plan, {run.group: run.config.train.lr for run in plan.runs})


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("n", [1, 3, 9, 45])
def test_no_line_is_wider_than_the_terminal(n, seeds, monkeypatch, capsys):
    plan, table = planned(n, seeds)
    monkeypatch.setattr(console, "width_of", lambda stream=None: 80)
    console.say(*screen_lines(plan, table, "--plan --full", 80))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "".join(lines[: lines.index("")]).count("hybrid") == n, "seeds are one row or column"
    assert len(lines) < 45 * 4 + 12


def test_three_models_of_three_seeds_are_three_columns():
    plan, table = planned(3, 3, name="m")
    lines = screen_lines(plan, table, "--plan --full", 80)
    assert lines[0].split() == ["m-0", "m-1", "m-2"]
    assert next(line for line in lines if line.startswith("runs")).split() == ["runs", *("x", "3", "seeds") * 3]
    assert any(line.startswith("9 runs: 3 models x 3 seeds; ") for line in lines)
    params = [f"{runs[0].matched.cost.params:,}" for runs in table.models.values()]
    assert next(line for line in lines if line.startswith("parameters")).split()[1:] == params


def test_what_all_models_have_in_common_is_said_once():
    plan, table = planned(9, name="m")
    first, header, *_ = screen_lines(plan, table, "--plan --full", 80)
    assert first.startswith("in all models: ")
    assert "lr 0.01" in first
    assert "lr" not in header.split()


def test_notes_are_folded_and_whole_in_full():
    plan, table = planned(9)
    (note,) = [line for line in screen_lines(plan, table, "plan.csv", None) if " on budgets: " in line]
    assert note.startswith("1 note on budgets: train.tokens: 6,151 is no multiple")
    assert len(note) < 200
    full = full_lines(plan, table)
    assert [line for line in full if line.startswith("run: ")] == [f"run: {run.name}" for run in plan.runs]
    assert any(plan.runs[-1].group in line for line in full if line.startswith("train.tokens: "))


def test_one_run_is_singular():
    plan, table = planned(1)
    text = " ".join(screen_lines(plan, table, "--plan --full", None))
    assert "1 run; " in text
    assert "1 seed" in text
    assert "within" not in text, "of one model nothing is matched"
    assert "off budget" not in text, "there is none"


def test_training_writes_all_columns_and_notes(tmp_path, monkeypatch, data_settings):
    from lcprobe.config import load
    from lcprobe.studies.training.train_study import print_plan
    from tests.tiny import write_config

    config = write_config(tmp_path, data_settings)
    plan = print_plan(load([str(config)], ["study.plan_for=h100"]), write=True)
    with open(plan.folder / "plan.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["mamba2", "hybrid"]
    assert {"layout", "d_ff", "embedding", "off budget", "lr"} <= rows[0].keys()
    assert "run: hybrid" in (plan.folder / "plan.txt").read_text().splitlines()
