"""One error rate for a report, whatever is true in it: branches, families, claims, and what stands behind them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprobe.analysis.findings.families import SHARES, Branch, Claim, corrected
from lcprobe.analysis.stats.multiplicity import ALPHA

MODELS: Branch = "models against each other"
BY_ITSELF: Branch = "each model by itself"


def claim(family: str, p: float | None, **more) -> Claim:
    return Claim(family=family, p=p, **more)


def p_values(*claims: Claim) -> list[float | None]:
    return [c.p_report for c in corrected(claims)]


def test_one_family_is_corrected_by_holm():
    assert p_values(claim("a", 0.01), claim("a", 0.03), claim("a", 0.02)) == pytest.approx([0.03, 0.04, 0.04])
    assert p_values(claim("a", 0.03), claim("a", None)) == [0.03, None]


def test_the_report_is_shared_by_branches_families_and_claims():
    claims = [claim("a", 0.001), claim("a", 0.9), claim("b", 0.002), claim("c", 0.9, branch=MODELS)]
    # a quarter of the report, 2 families, 2 claims; b: a quarter and 2 families
    assert p_values(*claims)[:3] == pytest.approx([0.016, 1, 0.016])
    assert p_values(*claims[:3])[0] == pytest.approx(0.004)  # no comparison of models: one branch has all


def test_what_is_finished_leaves_its_share_to_the_others():
    first, second = corrected([claim("a", 0.001), claim("b", 0.04)])
    assert (first.p_report, second.p_report) == (0.002, 0.04)


def test_seeds_count_as_much_as_samples():
    both, samples = corrected([claim("a", 1e-9, p_seeds=0.2), claim("b", 1e-9)])
    assert (both.resolved, samples.resolved) == (False, True)


def test_what_stands_behind_a_claim_needs_it_and_costs_other_claims_nothing():
    top, other = claim("top", 0.01, name="top"), claim("top", 0.04)
    children = [claim("below", 0.0004, behind="top") for _ in range(50)]
    tested = corrected([top, other, *children])
    assert tested[0].p_report == 0.02
    assert tested[2].p_report == pytest.approx(0.04)  # 2 x 50 x .0004: the share of what they stand behind
    assert tested[1].p_report == pytest.approx(0.04)  # all behind the first are found: its share is free
    assert p_values(claim("top", 0.01, name="top"), other)[1] == pytest.approx(0.04)
    assert not any(c.resolved for c in corrected([claim("top", 0.06, name="top"), *children]))
    untested = corrected([claim("top", None, name="top"), *children])
    assert not any(c.resolved for c in untested)


def test_a_joint_claim_is_as_good_as_the_weakest_that_it_needs():
    ends = [claim("m", 0.001, name="start"), claim("m", 0.02, name="end")]
    both = claim("m", 0.02, needs=("start", "end"))
    assert p_values(*ends, both) == [0.002, 0.02, 0.02]
    assert p_values(*ends, claim("m", 1.0, needs=("start", "end")))[2] == 1.0


def test_what_is_given_a_gate_is_no_finding_without_it():
    """And parts of a claim are corrected in its family, each behind the one before it as far as they say so."""
    gate = claim("gates", None, parts=(claim("gates", 0.2, name="open"),))
    assert [c.resolved for c in corrected([gate, claim("a", 1e-9, given=("open", "no such gate"))])] == [False, False]
    steps = [
        claim("a", p, name=f"{i}", behind=f"{i - 1}" if i else "") for i, p in enumerate((1e-3, 1e-3, 0.04, 1e-9))
    ]
    whole, other = corrected([claim("a", None, parts=tuple(steps)), claim("a", 0.9)])
    assert [part.p_report for part in whole.parts] == pytest.approx([0.002, 0.002, 0.08, 0.08])
    assert [part.holds for part in whole.parts] == [True, True, False, False]
    assert other.p_report == 1.0 or not other.resolved


@pytest.mark.parametrize("reports", [250, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("true_in_each", [0, 1])
def test_at_most_one_report_in_twenty_holds_a_false_finding(true_in_each, reports):
    """Reports of 15 families of 1 to 30 claims, without and with a true finding in every family: Holm inside
    families and over their least p would hold a false one in half of the reports where every family has a true one."""
    generator, false = np.random.default_rng(0), 0
    sizes = generator.integers(1, 31, 15)
    for _ in range(reports):
        claims = [claim(str(f), float(p)) for f, size in enumerate(sizes) for p in generator.random(size)]
        true = [claim(str(f), 1e-9) for f in range(15) for _ in range(true_in_each)]
        false += any(c.resolved for c in corrected([*true, *claims])[len(true) :])
    assert 0.02 * reports <= false <= 0.05 * reports + 2 * (0.05 * 0.95 * reports) ** 0.5


@given(st.lists(st.floats(0, 1), min_size=3, max_size=6), st.integers(0, 2**16))
def test_a_claim_is_found_just_below_its_share_of_the_error_rate(p_values, seed):
    """The interval at ALPHA x share decides as the report does."""
    rng = np.random.default_rng(seed)
    claims = [claim(str(rng.integers(2)), p, branch=MODELS if rng.random() < 0.5 else BY_ITSELF) for p in p_values]
    for i, own in enumerate(corrected(claims)):
        assert (own.share is None) == own.resolved
        if own.share is not None:
            for factor in (0.999, 1.001):
                moved = [*claims]
                moved[i] = replace(claims[i], p=ALPHA * own.share * factor)
                assert corrected(moved)[i].resolved == (factor < 1)


class Part:
    """A part of the report whose score is read from all of its parts, every time: the rule as it is written."""

    def __init__(self, weight: float = 1.0, p: float = 0.0, found: bool = True):
        self.weight, self.p, self.found = weight, p, found
        self.parts: list[Part] = []

    @property
    def score(self) -> float:
        if not self.found:
            return self.p
        known = [(part.weight, score) for part in self.parts if (score := part.score) < math.inf]
        total = sum(weight for weight, _ in known)
        return min((total / weight * score for weight, score in known), default=math.inf)


def written_out(claims: list[Claim]) -> list[float | None]:
    """p_report by going through the whole report for every claim that is found."""
    root, parts, nodes, p_report, reached = Part(), {}, {}, {}, 0.0
    for c in claims:
        if c.p is not None and (not c.behind or c.behind in nodes):
            if c.branch not in parts:
                parts[c.branch] = Part(SHARES[c.branch])
                root.parts.append(parts[c.branch])
            if (c.branch, c.family) not in parts and not c.behind:
                parts[c.branch, c.family] = Part()
                parts[c.branch].parts.append(parts[c.branch, c.family])
            place = nodes[c.behind] if c.behind else parts[c.branch, c.family]
            nodes[c.name] = Part(1.0, max(c.p, c.p_seeds or 0.0), found=False)
            place.parts.append(nodes[c.name])
    while root.score < 1:
        reached, node = max(reached, root.score), root
        while node.found:
            node = min(node.parts, key=lambda part: part.score / part.weight)
        node.found, p_report[id(node)] = True, reached
    return [None if c.p is None else p_report.get(id(nodes.get(c.name)), 1.0) for c in claims]


P = st.sampled_from([None, 0.0, 1e-9, 1e-4, 0.002, 0.01, 0.03, 0.2, 1.0])


@settings(deadline=None)
@given(st.lists(st.tuples(P, P, st.sampled_from("abc"), st.booleans(), st.integers(0, 9)), max_size=14))
def test_a_report_is_corrected_exactly_as_the_rule_is_written(rows):
    """Whatever stands behind what: the open parts of a family in a heap give the numbers of the plain rule."""
    claims: list[Claim] = []
    for i, (p, p_seeds, family, models, before) in enumerate(rows):
        behind = claims[-1 - before] if before < len(claims) else None
        branch, family = (
            (MODELS if models else BY_ITSELF, family) if behind is None else (behind.branch, behind.family)
        )
        name = "" if behind is None else behind.name
        claims.append(Claim(branch=branch, family=family, p=p, p_seeds=p_seeds, name=f"{i}", behind=name))
    assert p_values(*claims) == written_out(claims)
