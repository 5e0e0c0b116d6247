"""The re-test of "lost in the middle" on Table 4."""

from collections import Counter

from scipy.stats import chi2_contingency

from lcprobe.analysis.published.retest import PATTERNS, retest
from lcprobe.analysis.published.tables import SAMPLES


def test_seven_of_22_triples_have_the_middle_below_both_ends():
    triples = retest()
    assert Counter(triple.pattern for triple in triples) == dict(zip(PATTERNS, (7, 7, 5, 3), strict=True))
    lost = {(t.model, t.length, t.format.haystack, t.format.value) for t in triples if t.pattern == "below both ends"}
    assert {("Mamba2", 2048, "essay", "number"), ("M2A", 4096, "repeat", "number")} <= lost


def test_p_values_are_those_of_scipy_corrected_over_all_44():
    """Holm's largest p-values: the least significant is unchanged, the most significant is multiplied by 44."""
    triples = retest()
    raw, own = [], []
    for triple in triples:
        start, middle, end = triple.counts
        for other, p in ((start, triple.p_start), (end, triple.p_end)):
            table = [[middle, SAMPLES - middle], [other, SAMPLES - other]]
            raw.append(chi2_contingency(table, correction=False)[1])
            own.append(p)
    assert len(raw) == 44
    running = 0.0
    for rank, i in enumerate(sorted(range(44), key=raw.__getitem__)):
        running = max(running, min(1, (44 - rank) * raw[i]))
        assert abs(own[i] - running) < 1e-12


def test_three_points_of_the_middle_are_above_an_end_and_one_significantly():
    above = [
        (t, end)
        for t in retest()
        if t.pattern == "below neither"
        for end, p in ((t.counts[0], t.p_start), (t.counts[2], t.p_end))
        if t.counts[1] > end and p < 0.05
    ]
    assert [(t.model, t.length, str(t.format)) for t, _ in above] == [("Mamba2", 1024, "repeat/word/number")]
