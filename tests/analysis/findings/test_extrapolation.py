"""Effective length holds its error rate where guessing alone would reach 0.85 of the base, and at the boundary."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lcprobe.analysis.findings.cells import SCORES, Measured, NeedleTrials, Panel, PanelKey
from lcprobe.analysis.findings.extrapolation import Extrapolation, extrapolations, trained_end
from lcprobe.analysis.findings.families import corrected
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.tasks.episode import Formats
from lcprobe.training_data import SHARES, TrainingData
from tests.analysis.fabricated import FORMAT, flat, plan, records, run, study, task

LENGTHS, DEPTHS, N = (64, 128, 256, 512, 1024), (0.1, 0.3, 0.5, 0.7, 0.9), 100
SEEDS = 100


def effective(generator: np.random.Generator, p: list[float], chance: float) -> Extrapolation:
    """The effective length of one study with accuracy p at each length; trained at 128."""
    hits = (generator.random((len(LENGTHS), len(DEPTHS), N)) < np.array(p)[:, None, None]).astype(np.int64)
    nothing = {name: (np.zeros(hits.shape[:2]), np.zeros(hits.shape[:2])) for name in SCORES}
    nothing["chance"] = (np.full(hits.shape[:2], chance * N), np.full(hits.shape[:2], N))
    where = PanelKey("m", "multikey", Formats(*FORMAT))
    panel = Panel(
        where, LENGTHS, DEPTHS, (5,) * 5, np.arange(N), hits, np.ones_like(hits), np.zeros_like(hits), nothing,
        NeedleTrials(*[np.zeros(0)] * 4),
    )  # fmt: skip
    facts = study([run("m")], [task("multikey", round(1 / chance))], plan(["multikey"], lengths=LENGTHS))
    planned = {("multikey", where.format, "none"): {x: dict.fromkeys(DEPTHS, N) for x in LENGTHS}}
    data = Measured(facts, {where: panel}, planned, (), pa.table({}), 0)
    (result,) = corrected(extrapolations(data, {}, ratios=False))
    return result


@pytest.mark.parametrize(
    ("p", "chance"),
    [
        pytest.param([0.55, 0.55, 0.5, 0.5, 0.5], 0.5, marks=pytest.mark.slow),  # at chance: above 0.85 of .55
        ([0.9, 0.9, 0.25 + 0.85 * 0.65, 0.25, 0.25], 0.25),  # at the boundary itself
        # longer lengths give no further chance
        pytest.param([0.9, 0.9, 0.25 + 0.85 * 0.65, 0.25 + 0.85 * 0.65, 0.9], 0.25, marks=pytest.mark.slow),
    ],
)
def test_a_longer_length_passes_by_luck_in_at_most_one_study_in_twenty(p, chance):
    generator = np.random.default_rng(4)
    longer = sum((effective(generator, p, chance).effective or 0) > 128 for _ in range(SEEDS))
    assert longer <= 0.05 * SEEDS


def test_a_limit_is_claimed_by_luck_in_at_most_one_study_in_twenty():
    generator = np.random.default_rng(5)
    results = [effective(generator, [0.9, 0.9, *[0.25 + 0.85 * 0.65] * 3], 0.25) for _ in range(SEEDS)]
    assert sum(r.effective is not None and not r.at_least for r in results) <= 0.05 * SEEDS
    flat_ones = [effective(generator, [0.6] * 5, 0.25) for _ in range(40)]
    assert not any(r.effective is not None and not r.at_least for r in flat_ones)


def test_a_clear_limit_and_a_flat_curve_are_found():
    generator = np.random.default_rng(6)
    for _ in range(20):
        step = effective(generator, [0.9, 0.9, 0.9, 0.4, 0.3], 0.25)
        assert (step.effective, step.at_least) == (256, False)
        assert effective(generator, [0.9] * 5, 0.25).effective == 1024


def test_a_task_without_keys_has_its_effective_length_above_chance():
    """Parity at .62 up to 128 tokens and at chance, .5, past it: .5 is 0.8 of .62, and was said to pass in 8 of 12."""
    cells = plan(["parity"], lengths=LENGTHS, depths=[0.5], n=600)
    facts = study([run("m")], [replace(task("parity"), has_keys=False, chance=0.5)], cells)
    behaviour = lambda c: np.where(c["length"] <= 128, 0.62, 0.5)  # noqa: E731
    for seed in range(3):
        data = load_records(facts, records({"m": behaviour}, cells, seed, chance=0.5))
        (result,) = corrected(extrapolations(data, {}))
        assert (result.effective or 0) <= 128
        assert result.level == pytest.approx(0.5 + 0.85 * 0.12, abs=0.04)


def asked(*distances: float) -> TrainingData:
    """Training questions at distances up to the last."""
    return TrainingData(needle_distances=tuple(np.interp(SHARES, (0, 1), distances).tolist()))


def test_past_the_training_length_begins_where_trained_distances_end():
    cells = plan(["single"], lengths=LENGTHS)
    for longest, end in ((118.0, 128), (60.0, 64), (20.0, 0)):
        facts = study([run("m", training_data=asked(8.0, longest))], [task("single")], cells)
        data = load_records(facts, records({"m": flat(0.9)}, cells))
        where = PanelKey("m", "single", Formats(*FORMAT))
        assert trained_end(data, facts.runs[0], where) == end
        (result,) = corrected(extrapolations(data, {}))
        assert (result.trained_end, result.reference_length) == (end, max(end, 64))
        assert result.multiple == 8  # of the nominal training length
