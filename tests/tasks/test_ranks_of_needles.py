"""The places of needles give nothing away: every rank is equally likely, and the others stay when the target
moves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lcprobe.schema import build
from lcprobe.seeds import Stream
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.niah import NIAH, NIAHConfig
from lcprobe.tasks.parts.placement import Cut, Needle, among_lines
from lcprobe.tasks.text.formats import StringFormat, draw_strings

NEEDLE = Needle(np.arange(9), np.arange(4), np.arange(4), "value")


def cuts(target, others):
    return [Cut(i, depth, NEEDLE) for i, depth in enumerate([target, *others])]


def rank_among_all(placed, index):
    """Lines and needles before a needle."""
    before = next(i for i, (_, cut) in enumerate(placed) if cut.index == index)
    return before + placed[before][0]


@pytest.mark.parametrize("n_lines", [0, 1, 2, 7, 40])
def test_every_rank_among_lines_is_equally_likely(n_lines):
    ranks = []
    for i in range(3000):
        placed = among_lines(cuts((i + 0.5) / 3000, Stream("others", i).uniform(3)), 0, n_lines)
        ranks.append([rank_among_all(placed, index) for index in range(4)])
    for index in (0, 3):
        counts = np.bincount([r[index] for r in ranks], minlength=n_lines + 4)
        assert stats.chisquare(counts).pvalue > 1e-4


@given(
    depth=st.floats(0, 1), others=st.lists(st.floats(0, 0.999), min_size=1, max_size=5), n_lines=st.integers(0, 30)
)
def test_the_others_stay_among_the_lines_wherever_the_target_is(depth, others, n_lines):
    at = {c.index: lines for lines, c in among_lines(cuts(depth, others), 0, n_lines)}
    start = {c.index: lines for lines, c in among_lines(cuts(0.0, others), 0, n_lines)}
    assert {i: n for i, n in at.items() if i} == {i: n for i, n in start.items() if i}
    order = [c.index for _, c in among_lines(cuts(1.0, others), 0, n_lines)]
    assert order[-1] == 0
    lines = [n for n, _ in among_lines(cuts(depth, others), 0, n_lines)]
    assert lines == sorted(lines)
    assert 0 <= min(lines)
    assert max(lines) <= n_lines
    assert abs(rank_among_all(among_lines(cuts(depth, others), 0, n_lines), 0) - depth * (n_lines + len(others))) <= 1


def test_every_rank_in_a_text_is_equally_likely_even_where_needles_fill_it(materials):
    niah = NIAH(build(NIAHConfig, {"n_keys": 4, "template": "line", "digits": 2}, "task"), materials)
    for length in (52, 400):
        ranks = []
        for i in range(800):
            e = niah.episode(Factors(Formats("corpus", "words", "numbers"), length, (i + 0.5) / 800, i))
            ranks.append(next(r for r, (a, b) in enumerate(e.needles) if a <= e.queries[0].needle < b))
        assert stats.chisquare(np.bincount(ranks, minlength=4)).pvalue > 1e-4


def test_the_target_string_is_as_free_as_the_others(tokenizer):
    """The first string is the target: it must not be the one that is rarest in the haystack."""
    firsts = []
    for i in range(400):
        run = {str(n): n * 10 for n in range(10, 100)}  # the larger, the freer
        strings = draw_strings(
            StringFormat("numbers", 2), 3, Stream("draw", i), tokenizer, run.__getitem__, 5000, "value"
        )
        firsts.append(sorted(strings).index(strings[0]))
    assert stats.chisquare(np.bincount(firsts, minlength=3)).pvalue > 1e-4


def test_needles_with_nothing_between_them_are_no_likelier_targets(materials):
    niah = NIAH(build(NIAHConfig, {"n_keys": 4, "digits": 4}, "task"), materials)
    for length in (96, 160):
        touching, hits = 0, 0.0
        for i in range(1200):
            e = niah.episode(
                Factors(Formats("corpus", "words", "numbers"), length, Stream("depth", i).uniform(1)[0], i)
            )
            near = [
                any(abs(a - d) <= 2 or abs(b - c) <= 2 for c, d in e.needles if (c, d) != (a, b))
                for a, b in e.needles
            ]
            touching += any(near)
            mine = [n for n, (a, b) in zip(near, e.needles, strict=True) if a <= e.queries[0].needle < b]
            hits += sum(mine) / sum(near) if any(near) else 0.0
        assert touching > 100
        assert abs(hits / touching - 0.25) < 4 * (0.25 * 0.75 / touching) ** 0.5
