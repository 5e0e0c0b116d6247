"""The order in which a study's runs are probed and reported."""

from pathlib import Path

import pytest
import yaml

from lcprobe.errors import DataError
from lcprobe.studies.evaluation.targets import _natural, in_order_of_grid


def test_numbers_in_names_sort_by_value() -> None:
    """L64 before L128, s2 before s10, and names that begin with a number among themselves."""
    names = ["L64-a-s10", "L512-a", "10x", "L128-a", "L64-a-s2", "9x", "mamba2"]
    wanted = ["9x", "10x", "L64-a-s2", "L64-a-s10", "L128-a", "L512-a", "mamba2"]
    assert [path.name for path in sorted(map(Path, names), key=_natural)] == wanted


def test_runs_come_in_the_order_of_the_grid(tmp_path) -> None:
    """Labels and values as written, names without the labels of axes that have no effect among them, then others."""
    grid = {"arch": {"z": {}, "a-b": {}, "a": {}}, "train.context_length": [128, 64], "seed": [1, 0]}
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({"grid": grid}, sort_keys=False))
    length = "context_length="
    wanted = [
        f"z-{length}128-s1", f"z-{length}128-s0", f"z-{length}64-s1", "a-b-s1", f"a-b-{length}64-s0",
        f"a-{length}128-s1", f"a-{length}64-s0", "old2", "old10",
    ]  # fmt: skip
    own, others = in_order_of_grid(study, map(Path, sorted(wanted)))
    assert [path.name for path in [*own, *others]] == wanted
    assert [path.name for path in others] == ["old2", "old10"]
    before = ["z-context_length128-s1", "a-context_length64-s0"]  # of an earlier version
    own, others = in_order_of_grid(study, map(Path, sorted(before)))
    assert ([path.name for path in own], others) == (before, [])
    study.write_text("")
    own, others = in_order_of_grid(study, map(Path, ["b10", "run", "b2", "a"]))
    assert [path.name for path in own] == ["run"]
    assert [path.name for path in others] == ["a", "b2", "b10"]
    study.write_text("[")
    with pytest.raises(DataError, match="not readable; allowed: a study.yaml"):
        in_order_of_grid(study, [])
