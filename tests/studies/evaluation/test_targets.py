"""The order in which a study's runs are probed and reported."""

from pathlib import Path

from lcprobe.studies.evaluation.targets import _natural


def test_numbers_in_names_sort_by_value() -> None:
    """L64 before L128, s2 before s10, and names that begin with a number among themselves."""
    names = ["L64-a-s10", "L512-a", "10x", "L128-a", "L64-a-s2", "9x", "mamba2"]
    wanted = ["9x", "10x", "L64-a-s2", "L64-a-s10", "L128-a", "L512-a", "mamba2"]
    assert [path.name for path in sorted(map(Path, names), key=_natural)] == wanted
