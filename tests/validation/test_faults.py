"""Faults in real runs: a few of them, and all (slow), as `python -m validation faults` does them."""

import pytest

from validation.faults.table import FAULTS, Ground, row_of

SOME = ("out of memory", "a second signal")


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return Ground(tmp_path_factory.mktemp("faults") / "ground")


@pytest.mark.parametrize("name", [*SOME, *(pytest.param(n, marks=pytest.mark.slow) for n in FAULTS if n not in SOME)])
def test_a_fault_ends_as_the_table_says(ground, name):
    row = row_of(FAULTS[name], ground)
    assert row["as expected"], row
