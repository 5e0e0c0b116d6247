"""Exact tests against enumeration and scipy, and Holm's correction by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lcprobe.analysis.stats.exact_tests import holm, permutation_test, sign_flip


@given(b=st.integers(0, 60), c=st.integers(0, 60), ties=st.integers(0, 20))
def test_sign_flip_on_single_trials_is_mcnemars_exact_test(b, c, ties):
    exact = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    difference = np.repeat([1, -1, 0], [b, c, ties])
    assert sign_flip(difference) == pytest.approx(exact, rel=1e-6, abs=1e-13)


@settings(max_examples=60)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=11))
def test_sign_flip_equals_the_enumeration_of_all_signs(values):
    d = np.array(values)
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(d))).reshape(len(d), -1)
    tail = (np.abs(signs.T @ d) >= abs(d.sum())).mean()
    assert sign_flip(d) == pytest.approx(tail, abs=1e-12)


def test_sign_flip_refuses_fractions():
    with pytest.raises(ValueError, match="whole numbers"):
        sign_flip(np.array([0.5, 1.0]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=1, max_size=4))
def test_permutation_test_equals_the_enumeration_of_all_orders(rows):
    values, weights = np.array(rows), np.array([3, -1, -1, -1])
    totals = [0]
    for row in rows:
        totals = [t + int(np.dot(weights, order)) for t in totals for order in itertools.permutations(row)]
    observed = abs(int((values @ weights).sum()))
    assert permutation_test(values, [0, 1, 1, 1], [3, -1]) == pytest.approx(
        np.mean(np.abs(totals) >= observed), abs=1e-9
    )


@given(b=st.integers(0, 30), c=st.integers(0, 30))
def test_permutation_test_on_two_conditions_is_mcnemars_test(b, c):
    values = np.array([[1, 0]] * b + [[0, 1]] * c + [[1, 1]])
    assert permutation_test(values, [0, 1], [1, -1]) == pytest.approx(
        sign_flip(values[:, 0] - values[:, 1]), abs=1e-9
    )


def test_one_condition_against_three_keeps_its_level_near_the_ceiling_where_signs_do_not():
    """30 samples of a flat .9, 1500 studies at .01, the level of the smallest p in a Holm family."""
    generator = np.random.default_rng(4)
    studies = (generator.uniform(size=(1500, 30, 4)) < 0.9).astype(int)
    orders = np.mean([permutation_test(x, [0, 1, 1, 1], [3, -1]) < 0.01 for x in studies])
    signs = np.mean([sign_flip(x @ [3, -1, -1, -1]) < 0.01 for x in studies])
    assert orders < 0.016
    assert signs > 0.018


def test_holm_by_hand():
    # sorted: .01 x 4, .02 x 3, .025 x 2 = .05 but never below the one before, .5 x 1
    assert holm([0.5, 0.01, 0.025, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([]) == []
