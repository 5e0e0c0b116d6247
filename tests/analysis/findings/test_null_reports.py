"""The simulation of whole reports: what it calls false, and that equal models are not told apart."""

from dataclasses import replace

import numpy as np
import pytest

from lcprobe.analysis.findings.contrasts import Contrast
from validation.null_reports import CONTEXT, LENGTHS, claims_of, expected, is_false, logit_of, simulate


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


def test_the_expected_accuracy_is_that_of_many_samples():
    level = logit_of(0.6)
    assert expected(np.array(level)) == pytest.approx(0.6)
    draws = 1 / (1 + np.exp(-(level + np.random.default_rng(0).normal(size=100_000))))
    assert draws.mean() == pytest.approx(0.6, abs=0.003)
