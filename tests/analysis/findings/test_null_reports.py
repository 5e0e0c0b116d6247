"""The simulation of whole reports: what it calls false, and that equal models are not told apart."""

from dataclasses import replace

import numpy as np
import pytest

from lcprobe.analysis.findings.contrasts import Contrast
from lcprobe.analysis.findings.extrapolation import Extrapolation
from lcprobe.analysis.findings.gates import Gate
from validation.null_reports import (
    CONTEXT,
    LENGTHS,
    claims_of,
    expected,
    is_false,
    logit_of,
    simulate,
    without_intervals,
)


@pytest.mark.parametrize("seeds", [1, 2])
def test_reports_of_equal_models_with_seed_noise_hold_nothing_false(seeds):
    """Ten reports: with 43 % of false ones, as Holm over samples alone had, all ten are clean once in 300."""
    generator = np.random.default_rng(seeds)
    for _ in range(5):
        study = simulate(generator, 1, seeds, 0.6, 0.0, 50)
        assert not any(is_false(claim, study) for claim in claims_of(study, whole=True))


def test_a_difference_is_found_and_a_wrong_one_is_called_false():
    study = simulate(np.random.default_rng(3), 1, 1, 0.0, 0.3, 100)
    claims = [c for c in claims_of(study, whole=False) if isinstance(c, Contrast)]
    found = {c.subject: c for c in claims if c.kind == "models" and c.resolved}
    assert {*found} == {"a − b", "a − c"}
    assert not any(is_false(c, study) for c in claims)
    assert is_false(replace(found["a − b"], difference=-0.3), study)
    equal = next(c for c in claims if c.subject == "b − c")
    assert is_false(replace(equal, p_report=0.01), study)
    noisy = simulate(np.random.default_rng(3), 1, 1, 0.6, 0.0, 100)  # its runs differ, and its lengths do
    lengths = [c for c in claims_of(noisy, whole=True) if isinstance(c, Contrast) and c.kind == "length"]
    truth = noisy.rate["a", "task0"][LENGTHS.index(1024)] - noisy.rate["a", "task0"][LENGTHS.index(CONTEXT)]
    (last,) = (c for c in lengths if c.subject == "a" and c.length == 1024)
    assert [is_false(replace(last, p_report=0.01, difference=sign * truth), noisy) for sign in (1, -1)] == [
        False,
        True,
    ]


def test_a_guesser_is_seen_in_look_up_and_effective_length_and_seldom_given_any():
    """Ten reports with three guessers each."""
    generator, gates = np.random.default_rng(5), []
    for _ in range(10):
        study = simulate(generator, 1, 1, 0.0, 0.0, 60, ("guessed",))
        with without_intervals():
            claims = claims_of(study, whole=True)
        assert not any(is_false(claim, study) for claim in claims)
        gates += [claim for claim in claims if isinstance(claim, Gate)]
    assert {gate.lookup for gate in gates} == {"not acquired"}
    lucky = replace(gates[0], parts=tuple(replace(part, p_report=0.01) for part in gates[0].parts))
    assert (lucky.lookup, is_false(lucky, study)) == ("acquired", True)


def test_a_retriever_that_guesses_else_is_given_its_look_up_and_length():
    study = simulate(np.random.default_rng(6), 1, 1, 0.0, 0.3, 100, ("looked up",))
    claims = claims_of(study, whole=True)
    with without_intervals():
        assert [c.p_report for c in claims_of(study, whole=True)] == [c.p_report for c in claims]
    (gate,) = (c for c in claims if isinstance(c, Gate) and c.where.model == "a")
    (length,) = (c for c in claims if isinstance(c, Extrapolation) and c.where.model == "a")
    assert (gate.lookup, length.effective) == ("acquired", LENGTHS[-1])
    assert not any(is_false(claim, study) for claim in claims)
    assert is_false(
        replace(gate, length=64), replace(study, rate={key: 0 * rate for key, rate in study.rate.items()})
    )
    shorter = {key: rate * np.array([1, 1, 1, 0.8, 0.8]) for key, rate in study.rate.items()}
    assert is_false(length, replace(study, rate=shorter))


def test_the_expected_accuracy_is_that_of_many_samples():
    level = logit_of(0.6)
    assert expected(np.array(level)) == pytest.approx(0.6)
    draws = 1 / (1 + np.exp(-(level + np.random.default_rng(0).normal(size=100_000))))
    assert draws.mean() == pytest.approx(0.6, abs=0.003)
