"""Trained models need their weights and what was prepared of their text, wherever the text itself is; and nothing of a
run is changed by reading it."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lcprobe.cli.commands import evaluate_main, train_main
from tests.tiny import write_config

PROSE = [f"Chapter {i}. " + f"The {i}th river runs to the sea past mill and meadow. " * 40 for i in range(20)]
SMALL = {"tokens": 64 * 4 * 4, "probe_every": 0}
PROBE = {"grids": [{"lengths": [1], "depths": 1, "n": 2}], "context": None, "while_training": None}
ONE = {"arch": {"mamba2": {"model": {"layout": "mamba2"}}}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of one run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text("\n\n".join(PROSE))
    assert train_main([str(config_of(folder, folder / "text"))]) == 0
    return folder


@pytest.fixture
def study(tmp_path, trained):
    """The config of a copy of it, whose text is not at its place; what was prepared of it is there."""
    for name in ("runs", "data"):
        shutil.copytree(trained / name, tmp_path / name)
    return config_of(tmp_path, tmp_path / "text")


def config_of(folder: Path, text: Path) -> Path:
    data = {"corpus": [str(text)], "folder": str(folder / "data"), "held_out": 0.2, "haystack_chars": 20_000}
    return write_config(folder, data, train=SMALL, probe=PROBE, grid=ONE, match={"budget": None})


def said(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def weights(run: Path):
    return load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors")


def listing(folder: Path) -> dict[str, int]:
    """When each file and folder was last changed."""
    return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_what_was_prepared_is_enough_to_probe_and_to_go_on(tmp_path, study, capsys):
    run = tmp_path / "runs/tiny/mamba2"
    before, files = weights(run), listing(run)
    elsewhere = [f"data.folder={tmp_path}/data", f"study.folder={tmp_path}/mine", "study.name=mine"]
    assert evaluate_main([str(run), *elsewhere]) == 0
    assert (tmp_path / "mine/mine/report.html").is_file()
    assert listing(run) == files, "it may be somebody else's, and read-only"
    shutil.rmtree(max((run / "checkpoints").glob("step-*")))
    assert train_main([str(study)]) == 0
    after = weights(run)
    assert all((before[name] == after[name]).all() for name in before)
    capsys.readouterr()
    assert train_main([str(study), "study.name=new"]) == 2
    assert "data.corpus: given" in said(capsys)


def test_a_run_of_a_version_that_left_out_no_near_duplicates_goes_on_with_them_or_not_at_all(tmp_path, capsys):
    """Its text is the same, but not what is trained on."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("\n\n".join([*PROSE, *(f"Once more: {text}" for text in PROSE)]))
    config, run = config_of(tmp_path, tmp_path / "text"), tmp_path / "runs/tiny/mamba2"
    as_then = [str(config), "data.near_duplicates=null"]
    assert train_main(as_then) == 0
    saved = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(saved.replace("  near_duplicates: null\n", ""))
    before, prepared = weights(run), {*tmp_path.glob("data/*/manifest.json")}
    shutil.rmtree(max((run / "checkpoints").glob("step-*")))
    capsys.readouterr()
    assert train_main([str(config)]) == 2
    assert (
        said(capsys) == f"error: data.near_duplicates: given 0.5; allowed: null as in {run} (or another study.name)"
    )
    assert train_main(as_then) == 0
    after = weights(run)
    assert all((before[name] == after[name]).all() for name in before)
    assert evaluate_main([str(run)]) == 0
    assert {*tmp_path.glob("data/*/manifest.json")} == prepared, "nothing is prepared again"


def test_a_new_place_is_checked_by_digest(tmp_path, trained, study, capsys):
    run, prepared = tmp_path / "runs/tiny/mamba2", tmp_path / "data"
    shutil.rmtree(prepared)
    gone = [f"data.corpus=[{tmp_path}/gone]", f"data.folder={prepared}"]
    capsys.readouterr()
    assert evaluate_main([str(run), *gone, "--plan"]) == 2
    assert "allowed: the text at its place or another (data.corpus=...), or what was prepared" in said(capsys)
    assert evaluate_main([str(run), *gone, f"data.folder={trained}/data", "--plan"]) == 0
    for name, prose in (("same", PROSE), ("other", PROSE[1:])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "b.txt").write_text("\n\n".join(prose))
    capsys.readouterr()
    for command in (evaluate_main, train_main):
        place = [str(run), f"data.folder={prepared}", "--plan"] if command is evaluate_main else [str(study)]
        assert command([*place, f"data.corpus=[{tmp_path}/other]"]) == 2
        assert "trained on corpus" in said(capsys)
        assert not prepared.exists(), "refused before it is prepared"
        assert command([*place, f"data.corpus=[{tmp_path}/same]"]) == 0
        if command is train_main:  # what is there of the same text does not make another one the same
            assert train_main([*place, f"data.corpus=[{tmp_path}/other]"]) == 2
            assert len([path for path in prepared.iterdir() if path.name != "episodes"]) == 1
        capsys.readouterr()
        shutil.rmtree(prepared)  # or it would be found there


def test_paths_may_be_corrected_by_hand_and_nothing_else(tmp_path, study, capsys):
    run = tmp_path / "runs/tiny/mamba2"
    config = max((run / "checkpoints").glob("step-*")) / "config.yaml"
    text, before = config.read_text(), names(run)
    config.write_text(text.replace("/text", "/elsewhere"))
    assert evaluate_main([str(run), "--plan"]) == 0
    assert train_main([str(study)]) == 0, "training reads weights and state"
    for changed in (text.replace("lr: 0.01", "lr: 0.02"), text[: len(text) // 2], "{"):
        config.write_text(changed)
        capsys.readouterr()
        assert evaluate_main([str(run), "--plan"]) == 5
        assert "config.yaml: " in said(capsys)
    assert names(run) == before


def test_only_training_sets_damaged_checkpoints_aside(tmp_path, study, capsys):
    run = tmp_path / "runs/tiny/mamba2"
    newest = max((run / "checkpoints").glob("step-*"))
    (newest / "model.safetensors").write_bytes(b"\0" * 16)
    (run / "checkpoints" / ".tmp-9-1").mkdir()
    before = names(run)
    capsys.readouterr()
    assert evaluate_main([str(run), "--plan"]) == 0
    assert f"{newest.name}: model.safetensors has 16 bytes" in capsys.readouterr().err
    assert names(run) == before
    assert train_main([str(study)]) == 0
    assert set(names(run)) == {*before, f"bad-{newest.name}"} - {".tmp-9-1"}


def test_runs_of_an_earlier_configuration_are_named_and_not_probed(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(PROSE))
    config = config_of(tmp_path, text)
    for label in ("old", "new"):
        assert train_main([str(config), f"grid.arch={{{label}: {{model: {{layout: mamba2}}}}}}"]) == 0
    for given in ([str(tmp_path / "runs/tiny")], [str(config)]):
        capsys.readouterr()
        assert evaluate_main([*given, "--plan"]) == 0
        printed = capsys.readouterr().out
        assert "study.yaml: old (to probe one, name its folder)" in printed.replace("\n", "")
        assert "1 model x 2 cells" in printed
    assert evaluate_main([str(tmp_path / "runs/tiny/old"), "--plan"]) == 0
