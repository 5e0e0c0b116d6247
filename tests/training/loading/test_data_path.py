"""What `--plan` takes a core to make: the measured table at its points, straight lines of a token's time between them."""

import json
from pathlib import Path

import pytest

from lcprobe.training.loading.data_path import MEASURED, tokens_of_a_core

ROOT = Path(__file__).resolve().parents[3]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "data_path-cpu.json").read_text(encoding="utf-8"))["rows"]


def test_the_table_is_what_was_measured():
    shown = {(float(row["episodes"].rstrip("%")) / 100, row["length"]): row["M tokens/s a core"] for row in RESULTS}
    assert shown == MEASURED


@pytest.mark.parametrize(("share", "length"), MEASURED)
def test_points_of_the_table_are_met(share, length):
    assert tokens_of_a_core(share, length) == pytest.approx(1e6 * MEASURED[share, length], rel=1e-12)


def test_between_points_the_time_of_a_token_is_a_straight_line():
    """Computed by hand: a quarter of the way from 5 to 50 %; 4,096 tokens are a third of the way in 1 / length."""
    wanted = 0.75 / 9.85 + 0.25 / 2.78
    assert tokens_of_a_core(0.1625, 2048) == pytest.approx(1e6 / wanted, rel=1e-12)
    wanted = (2 / 27.91 + 1 / 9.85) / 3
    assert tokens_of_a_core(0.05, 4096) == pytest.approx(1e6 / wanted, rel=1e-12)


def test_beyond_the_table():
    """Shorter rows take more for a token, as much as the line says; longer ones are no faster; more episodes are
    slower."""
    wanted = 1 / 9.85 + (1 / 9.85 - 1 / 27.91) * 4 / 3
    assert tokens_of_a_core(0.05, 1024) == pytest.approx(1e6 / wanted, rel=1e-12)
    assert tokens_of_a_core(0.5, 131_072) == tokens_of_a_core(0.5, 8192)
    assert tokens_of_a_core(1.0, 2048) == pytest.approx(1e6 / (1 / 2.78 + (1 / 2.78 - 1 / 9.85) * 50 / 45), rel=1e-12)
