"""Groups of runs from several studies: pooled as training seeds only where nothing but the seed differs."""

from dataclasses import replace
from pathlib import Path

import pytest

from lcprobe.config import Config, parse
from lcprobe.files import write_json
from lcprobe.studies.evaluation.groups import group_names
from lcprobe.studies.evaluation.sources import TrainedCheckpoint
from lcprobe.studies.evaluation.targets import ProbeTarget


@pytest.fixture
def run(tmp_path):
    """A target in `study/group-seed` with settings on top of the defaults."""

    def made(study: str, group: str, seed: int, architecture: str = "", **settings) -> ProbeTarget:
        folder: Path = tmp_path / study / f"{group}-s{seed}"
        write_json(folder / "status.json", {"status": "done", "group": group})
        config: Config = parse({**settings, "seed": seed})
        config = replace(config, study=replace(config.study, architecture=architecture))
        source = TrainedCheckpoint(folder / "checkpoints" / "step-1", folder)
        return ProbeTarget(f"{study}.{group}-s{seed}", source, config)

    return made


def groups(*targets: ProbeTarget) -> list[str]:
    return [names.group for names in group_names(targets)]


def test_runs_of_one_study_keep_its_names(run):
    runs = [run("one", "mamba2", seed, train={"from": f"base-s{seed}"}) for seed in (0, 1)]
    assert groups(*runs) == ["mamba2", "mamba2"]


def test_seeds_that_were_trained_as_two_studies_are_one_group(run):
    first = run("one", "mamba2", 0, train={"threads": 1}, data={"folder": "here"})
    second = run("two", "mamba2", 1, train={"threads": 2}, data={"folder": "there"})
    assert groups(first, second) == ["mamba2", "mamba2"]


@pytest.mark.parametrize(
    "other",
    [
        {"data": {"tokenizer": "small.json"}},
        {"train": {"context_length": 128}},
        {"train": {"lr": 0.5}},
        {"model": {"d_model": 96}},
    ],
    ids=str,
)
def test_groups_of_two_studies_that_differ_in_more_than_the_seed_are_told_apart(run, other):
    runs = [
        run("one", "mamba2", 0),
        run("one", "hybrid", 0),
        run("two", "mamba2", 0, **other),
        run("two", "mamba2", 1, **other),
    ]
    assert groups(*runs) == ["one.mamba2", "hybrid", "two.mamba2", "two.mamba2"]


def test_an_architecture_at_another_training_length_is_the_same_and_otherwise_changed_is_not(run):
    short = run("one", "L64-mamba2", 0, "mamba2", train={"context_length": 64, "batch_tokens": 64 * 8})
    long = run("two", "L128-mamba2", 0, "mamba2", train={"context_length": 128, "batch_tokens": 128 * 8})
    wide = run("three", "L128-mamba2", 0, "mamba2", model={"d_model": 96})
    assert [names.architecture for names in group_names([short, long])] == ["mamba2", "mamba2"]
    assert [names.architecture for names in group_names([short, wide])] == ["one.mamba2", "three.mamba2"]
