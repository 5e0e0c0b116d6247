"""Effective length against training length: planted relations are recovered, and none is invented."""

from dataclasses import replace

import numpy as np
import pytest

from lcprobe.analysis.findings.families import Claim, corrected
from lcprobe.analysis.findings.gates import gates
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.analysis.findings.training_length.collapses import collapses
from lcprobe.analysis.findings.training_length.length_fits import MARGIN, LengthFit, length_fits
from tests.analysis.fabricated import flat, plan, records, run, study, task

TRAINED = (64, 128, 256, 512)
LENGTHS = tuple(32 * 2**i for i in range(8))


def measured(behaviour, seeds=3, n=40, trained=TRAINED, tasks=("single", 1), lengths=LENGTHS):
    """Models of one architecture; behaviour: of a training length."""
    cells = plan([tasks[0]], lengths=lengths, depths=(0.0, 0.5, 1.0), n=n)
    runs = [
        run(f"L{t}-m-s{s}", group=f"L{t}-m", architecture="m", context_length=t, seed=s)
        for t in trained
        for s in range(seeds)
    ]
    facts = study(runs, [task(*tasks)], cells)
    return load_records(facts, records({r.name: behaviour(r.context_length, r.seed) for r in runs}, cells))


def fit(behaviour, **changes) -> LengthFit:
    data = measured(behaviour, **changes)
    (only,) = corrected(length_fits(data, gates(data)))
    return only


def collapses_of(data):
    return collapses(data, length_fits(data, gates(data)))


def in_proportion(t, seed):
    return lambda c: 0.95 / (1 + (c["length"] / (2 * t * 2 ** (0.1 * (seed - 1)))) ** 4)


def fixed(t, seed):
    return lambda c: (c["distance"] <= 100 * 2 ** (0.1 * (seed - 1))).astype(float)


@pytest.mark.parametrize(
    ("behaviour", "verdict", "slope"), [(in_proportion, "ceiling", 1.0), (fixed, "fixed reach", 0.0)]
)
def test_planted_relations_are_recovered(behaviour, verdict, slope):
    result = fit(behaviour)
    assert (result.verdict, len(result.fitted)) == (verdict, 12)
    assert result.slope is not None
    assert result.slope.low < slope < result.slope.high


def test_the_base_is_the_best_accuracy_up_to_the_training_length():
    """A fixed reach of 100 tokens has 0.2 at 512: a base there would make the effective length grow in proportion."""
    result = fit(fixed)
    assert {r.base for r in result.runs} == {1.0}
    assert all(r.base_length < 100 for r in result.runs)


@pytest.mark.parametrize("p", [1.0, 0.9])
def test_models_that_never_fall_have_no_ceiling(p):
    result = fit(lambda t, s: flat(p), n=100)
    assert (result.verdict, result.longest, result.slope) == ("no ceiling", 4096, None)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_slope_of_one_half_is_neither(seeds):
    result = fit(lambda t, s: lambda c: 0.95 / (1 + (c["length"] / (12 * t**0.5 * 2 ** (0.1 * s))) ** 4), seeds=seeds)
    assert result.verdict == "not resolved"
    assert seeds == 1 or result.grows_less


OCTAVES, HALF_OCTAVES = LENGTHS, tuple(sorted({*LENGTHS, *(48 * 2**i for i in range(8))}))


@pytest.mark.parametrize(("reach", "power"), [(123, 0.7), (134, 0.3)])
@pytest.mark.parametrize("lengths", [OCTAVES, HALF_OCTAVES])
def test_a_fall_at_once_is_not_placed_better_than_the_tested_lengths(reach, power, lengths):
    """Over octaves, 123 x (t / 64)^0.7 falls between the same multiples of every training length, as 2 x t does."""
    result = fit(lambda t, s: lambda c: (c["length"] <= reach * (t / 64) ** power).astype(float), lengths=lengths)
    assert result.verdict == "not resolved"
    assert result.slope is not None
    assert result.slope.low - 0.1 < power < result.slope.high + 0.1


@pytest.mark.parametrize(("lengths", "verdict"), [(OCTAVES, "not resolved"), (HALF_OCTAVES, "ceiling")])
def test_a_fall_at_once_needs_tested_lengths_close_to_each_other(lengths, verdict):
    assert fit(lambda t, s: lambda c: (c["length"] <= 2 * t).astype(float), lengths=lengths).verdict == verdict


def test_a_run_without_a_length_up_to_its_own_has_no_base():
    """Read at twice its training length or more, a base is already after the fall."""
    result = fit(in_proportion, lengths=tuple(256 * 2**i for i in range(5)))
    refused = {run.context_length: run.refused for run in result.runs}
    assert "no tested length up to its training length of 64" in (refused[64] or "")
    assert refused[512] is None


def test_two_runs_set_no_bounds():
    """One seed at two training lengths: a slope, and neither bounds nor a number for what has none."""
    result = fit(in_proportion, seeds=1, trained=(64, 128))
    assert result.slope is not None
    assert result.multiple is not None
    assert not np.isfinite([result.slope.low, result.slope.high, result.multiple.low, result.multiple.high]).any()


def test_runs_that_did_not_acquire_the_task_have_no_part_in_the_collapse():
    def with_a_failed_seed(t, seed):
        return flat(0.02) if (t, seed) == (256, 1) else in_proportion(t, seed)

    (only,) = collapses_of(measured(with_a_failed_seed))
    assert only.verdict == "over multiples"


def test_models_that_learned_nothing_do_not_collapse():
    (only,) = collapses_of(measured(lambda t, s: flat(0.25), tasks=("multikey", 4)))
    assert only.verdict == "not tested"


def test_chance_is_not_an_effective_length():
    result = fit(lambda t, s: flat(0.25), tasks=("multikey", 4))
    assert result.verdict == "not tested"
    assert "not acquired" in result.note


def test_one_training_length_has_no_fit():
    data = measured(in_proportion, trained=(128,))
    assert length_fits(data, gates(data)) == []


@pytest.mark.parametrize(("behaviour", "verdict"), [(in_proportion, "over multiples"), (fixed, "over tokens")])
def test_curves_collapse(behaviour, verdict):
    (only,) = collapses_of(measured(behaviour))
    assert only.verdict == verdict


def test_flat_curves_collapse_over_both():
    (only,) = collapses_of(measured(lambda t, s: flat(0.9)))
    assert only.verdict == "over both"
    assert np.isclose(only.over_tokens.value, 0, atol=0.05)


def test_the_p_of_a_verdict_is_that_of_its_interval():
    """.05 where a bound touches the edge of the range; a report with more claims asks for more than that."""
    data = measured(in_proportion)
    (alone,) = length_fits(data, gates(data))
    (found,), others = corrected([alone]), [Claim(branch="each model by itself", p=1.0)]
    assert (alone.found, found.verdict) == ("ceiling", "ceiling")
    assert alone.slope is not None
    assert alone.p is not None
    assert 1 - MARGIN < alone.slope.low < alone.slope.high < 1 + MARGIN
    unsure = [replace(alone, p=0.04), *others]
    assert [c.verdict for c in corrected(unsure) if isinstance(c, LengthFit)] == ["not resolved"]
