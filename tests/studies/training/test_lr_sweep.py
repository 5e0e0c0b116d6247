"""The sweep: the best rate and its label, rates that diverge, rates set in the config, and resolved configs on their
own."""

from pathlib import Path

import pytest
import yaml

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.config import load
from lcprobe.files import read_json
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.training.lr_sweep import planned_rates, spread_of, trials_of, tune
from lcprobe.studies.training.train_study import train_study
from lcprobe.training.module import Training
from tests.tiny import write_config

SHORT = {
    "context_length": 64,
    "tokens": 64 * 4 * 10,
    "batch_tokens": 256,
    "threads": 1,
    "log_every": 1,
    "probe_every": 0,
}
ONE = {"arch": {"mamba2": {"model": {"layout": "mamba2 x 2"}}}}


def without_lr(config):
    """The same config without train.lr."""
    mapping = yaml.safe_load(config.read_text())
    del mapping["train"]["lr"]
    config.write_text(yaml.safe_dump(mapping, sort_keys=False))


def test_a_sweep_finds_the_best_rate_and_warns_at_the_edge(tmp_path, data_settings, capsys):
    sweep = {"name": "swept", "lr_sweep": {"lrs": [1e-6, 1e-5, 0.01], "tokens": 64 * 4 * 10}}
    config = write_config(
        tmp_path, data_settings, study={**sweep, "folder": str(tmp_path / "runs")}, train=SHORT, grid=ONE
    )
    assert train_main([str(config)]) == 0
    sweep = read_json(tmp_path / "runs" / "swept" / "lr_sweep.json")
    scores = {row["lr"]: row["score"] for row in sweep["rows"]}
    best = min(scores, key=scores.get)
    assert best == 0.01
    assert next(row for row in sweep["rows"] if row["best"])["lr"] == best
    assert "at the edge of the sweep" in capsys.readouterr().err
    run = tmp_path / "runs" / "swept" / "mamba2"
    assert read_json(run / "status.json")["tuned"] == "swept, at the edge of the grid"
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["lr"] == 0.01

    # an earlier sweep is good for the same model, data and training, and flagged for any other
    path = tmp_path / "runs" / "swept" / "lr_sweep.json"
    without_lr(config)
    flagged = "swept for another model, other data or other training settings"
    for i, (change, tuned) in enumerate(
        (
            ([], "swept, at the edge of the grid"),
            (["data.answer_weight=2"], flagged),
            (["train.weight_decay=0"], flagged),
            (["train.tokens=5120"], "swept at 2,560 tokens, trained for 5,120, at the edge of the grid"),
        )
    ):
        again = [str(config), f"study.folder={tmp_path / str(i)}", "study.lr_sweep.lrs=[]", f"study.tuned_by={path}"]
        capsys.readouterr()
        assert train_main([*again, *change]) == 0
        assert " lr 0.01" in " ".join(capsys.readouterr().out.split())  # the plan shows the rate that is used
        status = read_json(tmp_path / str(i) / "swept" / "mamba2" / "status.json")
        assert status["tuned"] == tuned


def test_a_trial_that_is_killed_goes_on_from_its_last_checkpoint(tmp_path, data_settings, monkeypatch):
    """Of train.checkpoint_every, of which a trial keeps the newest."""
    sweep = {"lrs": [0.01, 0.02], "tokens": 256 * 6, "only": True}
    study = {"folder": str(tmp_path / "runs"), "lr_sweep": sweep}
    train = {**SHORT, "checkpoint_every": 512}
    config = write_config(tmp_path, data_settings, study=study, train=train, grid=ONE)
    taken, plain = [], Training.optimizer_step

    def step(self, *args, **kwargs):
        if len(taken) == 5:
            taken.append(None)
            raise RuntimeError("as if it were killed")
        plain(self, *args, **kwargs)
        taken.append(self.progress.step)

    monkeypatch.setattr(Training, "optimizer_step", step)
    with pytest.raises(RuntimeError, match="as if it were killed"):
        train_study(load([str(config)], []))
    (saved,) = (tmp_path / "runs" / "tiny" / "sweep").glob("*/checkpoints/step-*")
    assert saved.name == "step-00000004"
    train_study(load([str(config)], []))
    assert len(taken) == 5 + 1 + 2 + 6, "steps 5 and 6, and the other rate"


@pytest.mark.slow
def test_the_resolved_config_of_a_swept_run_is_self_contained(tmp_path, data_settings, monkeypatch):
    folder = tmp_path / "runs" / "tiny"
    sweep = {"lrs": [1e-5, 0.01, 0.02], "tokens": 64 * 4 * 10}
    study = {"folder": str(tmp_path / "runs"), "lr_sweep": sweep}
    config = write_config(tmp_path, data_settings, study=study, train=SHORT, grid={**ONE, "seed": [0, 1]})
    assert train_main([str(config)]) == 0
    without_lr(config)
    (tmp_path / "tuned").mkdir()
    monkeypatch.chdir(folder)
    by_file = ["study.lr_sweep.lrs=[]", "study.tuned_by=lr_sweep.json", f"study.folder={tmp_path / 'tuned'}"]
    assert train_main([str(config), *by_file]) == 0  # tuned by a file that is named from here

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for original in (folder, tmp_path / "tuned" / "tiny"):
        copy = original / "mamba2-s1" / "config.yaml"
        assert train_main([str(copy), f"study.folder={elsewhere / original.parent.name}"]) == 0
        again = elsewhere / original.parent.name / "tiny"
        assert [p.name for p in again.iterdir()] == ["mamba2-s1"], "one run, and no second sweep"
        before, after = (read_json(f / "mamba2-s1" / "status.json") for f in (original, again))
        for key in ("group", "tuned", "data_digest"):
            assert after[key] == before[key], key
        assert after["group"] == "mamba2"
        assert after["tuned"].startswith("swept")
        weights = [
            max((f / "mamba2-s1" / "checkpoints").glob("step-*")) / "model.safetensors" for f in (original, again)
        ]
        assert weights[0].read_bytes() == weights[1].read_bytes()

    changed = [str(folder / "mamba2-s0" / "config.yaml"), "train.lr=0.001", "study.folder=other"]
    assert train_main(changed) == 0
    assert read_json(elsewhere / "other" / "tiny" / "mamba2-s0" / "status.json")["tuned"] == "not swept"


def test_the_quickstarts_rates_were_swept_for_what_it_trains(tmp_path):
    runs, rows = tune(make_plan(load(["configs/quickstart.yaml"], [f"study.folder={tmp_path}"])))
    assert {run.config.study.tuned.how.partition(",")[0] for run in runs.values()} == {"swept"}
    assert {run.group: run.config.train.lr for run in runs.values()} == {
        r["group"]: r["lr"] for r in rows if r["best"]
    }
    longer, _ = tune(make_plan(load(["configs/quickstart.yaml"], ["train.tokens=15_000_000"])))
    assert {run.config.study.tuned.how.removesuffix(", at the edge of the grid") for run in longer.values()} == {
        "swept at 1,000,448 tokens, trained for 14,999,552"
    }


def test_a_diverging_rate_is_a_row_of_the_sweep_and_does_not_stop_it(tmp_path, data_settings, capsys):
    sweep = {"lrs": [0.001, 0.01, 1e12], "tokens": 64 * 4 * 20, "seeds": [0, 1]}
    study = {"name": "steep", "lr_sweep": sweep, "folder": str(tmp_path / "runs")}
    config = write_config(tmp_path, data_settings, study=study, train={**SHORT, "tokens": 64 * 4 * 20}, grid=ONE)
    assert train_main([str(config)]) == 0
    shown = capsys.readouterr()
    assert "sweep: mamba2-lr=1e+12-s1 diverged" in shown.err
    rows = {row["lr"]: row for row in read_json(tmp_path / "runs" / "steep" / "lr_sweep.json")["rows"]}
    assert [rows[lr]["diverged_seeds"] for lr in sweep["lrs"]] == [0, 0, 2]
    assert rows[1e12]["score"] is None
    assert rows[0.01]["best"], "0.001 learns less in 20 steps"
    assert not rows[0.01]["at_edge"], "a rate above it was tried"
    assert spread_of(list(rows.values()), "mamba2")["rates that diverged"] == 1
    few = "probe.grids=[{tasks: [single], lengths: [1], depths: 1, n: 2}]"
    assert evaluate_main([str(tmp_path / "runs" / "steep"), few, "probe.context=null"]) == 0
    assert "diverged_seeds" in (tmp_path / "runs" / "steep" / "report.html").read_text()


def test_a_sweep_in_which_every_rate_diverges_is_one_line(tmp_path, data_settings, capsys):
    study = {"lr_sweep": {"lrs": [1e12, 1e13], "tokens": 64 * 4 * 20}, "folder": str(tmp_path / "runs")}
    config = write_config(tmp_path, data_settings, study=study, train={**SHORT, "tokens": 64 * 4 * 20}, grid=ONE)
    assert train_main([str(config)]) == 2
    assert "study.lr_sweep.lrs: given [1000000000000.0" in capsys.readouterr().err


def test_a_configured_rate_replaces_an_earlier_sweep(tmp_path, capsys):
    folders = [f"study.folder={tmp_path}/runs", f"data.folder={tmp_path}/data"]
    own = ["train.lr=0.5", "study.tuned_by=null"]
    assert train_main(["configs/quickstart.yaml", *folders, *own, "--plan"]) == 0
    assert capsys.readouterr().out.split().count("0.5") == 3
    new = "grid.arch.late={model: {layout: 'mamba2, attention+mlp'}, train: {lr: 0.25}}"  # unknown to the sweep
    swept = {r["group"]: r["lr"] for r in read_json(Path("configs/sweep/quickstart.json"))["rows"] if r["best"]}
    rates = planned_rates(make_plan(load(["configs/quickstart.yaml"], [*folders, new])))
    assert rates == swept | {"late": 0.25}


def test_rates_that_six_digits_do_not_tell_apart_are_trials_of_their_own():
    rates = [0.01, 0.012345678, 0.012345679]
    plan = make_plan(load(["configs/quickstart.yaml"], [f"study.lr_sweep.lrs={rates}", "grid.seed=[0]"]))
    (own, *_) = trials_of(plan).values()
    assert [trial.config.train.lr for trial in own] == rates
    assert [trial.name.partition("-lr=")[2] for trial in own] == [f"{rate}-s0" for rate in rates]


def test_trials_of_a_run_that_starts_from_an_untrained_one_are_refused(tmp_path, data_settings, capsys):
    """In one line of the plan, not after the trials of the runs before it."""
    length = {"a": {"train": {"context_length": 64}}, "b": {"train": {"context_length": 128, "from": "a"}}}
    study = {"name": "swept", "folder": str(tmp_path / "runs"), "lr_sweep": {"lrs": [0.001, 0.01]}}
    changes = {"study": study, "train": SHORT, "grid": ONE | {"length": length}, "match": {"budget": None}}
    config = write_config(tmp_path, data_settings, model={"d_model": 16}, **changes)
    without_lr(config)
    assert train_main([str(config), "--plan"]) == 2
    error = capsys.readouterr().err
    assert "study.lr_sweep.lrs: given 'trials of mamba2-b, which starts from mamba2-a'" in error
    assert not (tmp_path / "runs").exists()
