"""Random numbers as a function of names: values that never change, bijections, independence of streams."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprobe.seeds import Draws, Stream, permuted, seed_of


def test_values_never_change():
    """These numbers are behind published results: a change here is a new suite version."""
    assert seed_of("a", 1) == 1225789013615934736
    assert Stream("golden", 0).integers(1000, 5).tolist() == [829, 205, 916, 115, 927]
    assert permuted(5, 1000, "k", 0) == 120


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 700), st.integers(0, 100))
def test_permuted_is_a_bijection_at_any_size(n, key):
    assert sorted(permuted(i, n, "test", key) for i in range(n)) == list(range(n))


def test_permuted_moves_items_and_depends_on_the_key():
    a = [permuted(i, 1000, "k", 0) for i in range(1000)]
    b = [permuted(i, 1000, "k", 1) for i in range(1000)]
    assert sum(x == y for x, y in zip(a, b, strict=True)) < 20
    assert abs(np.corrcoef(np.arange(1000), a)[0, 1]) < 0.1


def test_drawing_more_of_one_name_moves_no_other():
    draw, again = Draws("x", 1), Draws("x", 1)
    draw("a").integers(10, 1000)
    assert draw("b").integers(10**6, 5).tolist() == again("b").integers(10**6, 5).tolist()


def test_uniform_and_integers_are_uniform():
    stream = Stream("even")
    values = stream.uniform(20_000)
    assert abs(values.mean() - 0.5) < 0.01
    counts = np.bincount(stream.integers(7, 70_000), minlength=7)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 30  # chi-square with 6 degrees of freedom
    big = [stream.integer(10**30) for _ in range(100)]
    assert max(big) > 9 * 10**29
    assert len(set(big)) == 100


def test_rounds_of_integers_are_integers_one_by_one():
    highs = (123, 1, 278, 2**128, 10**7 - 10**6)
    rounds, alone = Stream("rounds").rounds(*highs), Stream("rounds")
    assert [next(rounds) for _ in range(50)] == [[alone.integer(high) for high in highs] for _ in range(50)]


def test_a_permutation_has_every_item_once():
    assert sorted(Stream("p").permutation(50).tolist()) == list(range(50))


def test_small_integers_are_uniform_and_a_shorter_draw_is_a_prefix():
    for high in (2, 7, 64, 120):
        drawn = Stream("small", high).small(high, 70_000)
        expected = 70_000 / high
        counts = np.bincount(drawn, minlength=high)
        assert len(counts) == high
        assert ((counts - expected) ** 2 / expected).sum() < high + 5 * (2 * high) ** 0.5  # chi-square
        for n in (0, 1, 9, 1000):
            assert Stream("small", high).small(high, n).tolist() == drawn[:n].tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.data())
def test_distinct_integers_are_distinct(high, data):
    n = data.draw(st.integers(0, high))
    drawn = Stream("distinct", high, n).distinct(high, n)
    assert len(set(drawn)) == len(drawn) == n
    assert all(0 <= i < high for i in drawn)


def test_distinct_integers_are_uniform_at_every_position():
    counts = np.zeros((3, 5))
    for i in range(5000):
        for place, value in enumerate(Stream("even", i).distinct(5, 3)):
            counts[place, value] += 1
    assert ((counts - 1000) ** 2 / 1000).sum() < 12 + 5 * 24**0.5  # chi-square


def test_a_shuffle_of_items_in_random_order_favours_no_position():
    n, at_first, at_last = 9, np.zeros(9), np.zeros(9)
    for i in range(4000):
        order = Stream("shuffle", i).shuffle(n)
        assert sorted(order) == list(range(n))
        at_first[order[0]] += 1
        at_last[order[-1]] += 1
    for counts in (at_first, at_last):
        assert ((counts - 4000 / n) ** 2 / (4000 / n)).sum() < 35  # chi-squared with 8 degrees: p < 3e-5
