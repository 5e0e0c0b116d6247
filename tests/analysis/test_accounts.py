"""The decision rule of `explain`: nothing is explained where nothing differs, and what differs is found."""

import numpy as np
import pytest

from lcprobe.analysis.accounts import Claim, Scores, decide, log_likelihood_otherwise, whole_number_fits, without
from lcprobe.seeds import Stream


def scores(p, n, seed=0, paired=True):
    """n answers, right with probability p; the same uniform numbers under every p."""
    return Scores((Stream("accounts", seed).uniform(n) < p).astype(float), paired=paired)


@pytest.mark.parametrize("n", [20, 250, 4000])
@pytest.mark.parametrize("k", [0, 1, 7, 20])
def test_identical_counts_are_never_explained(n, k):
    own = Scores(np.arange(n) < k)
    changed = {"other": [Scores(np.arange(n) < n - k)], "same": [own]}
    decision = decide([Claim(k / n, n)], [own], changed, alpha=0.01)
    assert decision.verdict == "noise"
    assert not decision.named
    assert decision.ours.p == 1


def test_a_planted_change_is_found_more_often_with_more_samples():
    found = []
    for n in (30, 100, 300, 1000):
        hits = 0
        for seed in range(60):
            theirs = float((Stream("theirs", seed).uniform(n) < 0.62).mean())
            changed = {"planted": [scores(0.62, n, seed)], "other": [scores(0.2, n, seed)]}
            decision = decide([Claim(theirs, n)], [scores(0.5, n, seed)], changed, alpha=0.01)
            hits += [a.name for a in decision.named] == ["planted"]
        found.append(hits / 60)
    assert found == sorted(found)
    assert found[0] < 0.2
    assert found[-1] > 0.9


def test_nothing_is_invented_where_both_are_draws_of_one_proportion():
    invented = 0
    for seed in range(400):
        theirs = float((Stream("null", seed).uniform(250) < 0.4).mean())
        changed = {f"{p}": [scores(p, 250, seed)] for p in np.arange(0.05, 1, 0.05)}
        invented += bool(decide([Claim(theirs, 250)], [scores(0.4, 250, seed)], changed, alpha=0.01).named)
    assert invented <= 10, "alpha is .01: 4 expected"


def test_a_change_without_effect_accounts_for_nothing():
    own = scores(0.5, 400)
    decision = decide([Claim(0.59, 400)], [own], {"no effect": [own]}, alpha=0.05)
    assert decision.verdict == "none"
    assert not decision.accounts[0].moves


def test_several_changes_of_one_size_are_all_listed_with_shares():
    n = 500
    changed = {"a": [scores(0.8, n)], "b": [scores(0.8, n)], "c": [scores(0.1, n)]}
    decision = decide([Claim(0.8, n)], [scores(0.5, n)], changed, alpha=0.01)
    assert [a.name for a in decision.named] == ["a", "b"]
    assert [a.share for a in decision.named] == pytest.approx([(1 - decision.rest) / 2] * 2)
    assert [a.name for a in decision.accounts][-1] == "c"


def test_numbers_at_two_lengths_tell_apart_what_one_cannot():
    n = 500
    one = {"a": [scores(0.8, n)], "b": [scores(0.8, n)]}
    two = {"a": [*one["a"], scores(0.7, n)], "b": [*one["b"], scores(0.2, n)]}
    assert decide([Claim(0.8, n)], [scores(0.5, n)], one, 0.01).verdict == "several"
    decision = decide([Claim(0.8, n), Claim(0.2, n)], [scores(0.5, n), scores(0.1, n)], two, 0.01)
    assert decision.verdict == "one"
    assert decision.named[0].name == "b"


@pytest.mark.parametrize("n_changes", [1, 10, 40])
def test_of_many_changes_one_that_fits_one_number_may_be_a_coincidence(n_changes):
    """The same fit, among more changes: the share of something else grows, and nothing is named with certainty."""
    n = 2000
    changed = {f"{i}": [scores(0.3 + i / 100, n)] for i in range(n_changes - 1)} | {"fits": [scores(0.8, n)]}
    decision = decide([Claim(0.8, n)], [scores(0.5, n)], changed, alpha=0.01)
    assert [a.name for a in decision.named] == ["fits"]
    assert decision.tried == n_changes
    share = decision.named[0].share
    assert share + decision.rest == pytest.approx(1)
    assert decision.verdict == ("one" if share >= 10 * decision.rest else "coincidence")
    assert decision.verdict == ("one" if n_changes == 1 else "coincidence")


def test_something_else_may_be_any_number():
    """One number: each of the n + 1 counts is as likely, by an integral that is known."""
    for k in (0, 17, 100):
        assert log_likelihood_otherwise([Claim(k / 100, 100)], [scores(0.3, 400)]) == pytest.approx(
            -np.log(101), abs=0.01
        )


def test_no_number_is_named_with_certainty_among_many_changes():
    """Every number there is, against forty changes spread as those of a model are: named alone for none of them."""
    n = 250
    own, changed = scores(0.37, n), {f"{p}": [scores(p, n)] for p in np.linspace(0.02, 0.72, 40)}
    kinds = [decide([Claim(k / 50, n)], [own], changed, alpha=0.01).verdict for k in range(51)]
    assert set(kinds) <= {"noise", "coincidence", "none"}
    assert kinds.count("coincidence") > 10, "most numbers are close to one of so many changes"
    assert kinds[-1] == "none"


@pytest.mark.parametrize("factor", [0.5, 0.7])
def test_a_worse_model_is_no_change_of_the_measurement(factor):
    """Ours times one factor at three lengths: a change that does so too is no better an account than the model."""
    n, rates = 500, (0.8, 0.6, 0.4)
    claims = [Claim(round(rate * factor * n) / n, n) for rate in rates]
    shifted = {f"{f:.2f}": [scores(rate * f, n) for rate in rates] for f in np.linspace(0.3, 1, 30)}
    decision = decide(claims, [scores(rate, n) for rate in rates], shifted, alpha=0.01)
    assert decision.named
    assert decision.verdict != "one"


def test_what_facts_rule_out_is_no_longer_counted():
    n = 500
    changed = {"a": [scores(0.8, n)], "b": [scores(0.8, n)]} | {f"{i}": [scores(0.1, n)] for i in range(20)}
    decision = decide([Claim(0.8, n)], [scores(0.5, n)], changed, alpha=0.01)
    assert decision.verdict == "coincidence"
    known = without(decision, {"b", *map(str, range(20))}, ours_too=True)
    assert (known.verdict, [a.name for a in known.named], known.tried) == ("one", ["a"], 1)
    assert without(decision, {"b"}, ours_too=False).verdict == "coincidence"
    assert without(decision, set(changed), ours_too=True).verdict == "none"


def test_answers_of_one_sample_are_no_independent_trials():
    by_sample = np.repeat([0.0, 1.0], 50)  # four answers that are always right or wrong together
    together, apart = Scores(by_sample, 4), Scores(np.tile([0.25, 0.5, 0.5, 0.75], 25), 4)
    assert together.effective == pytest.approx(100, rel=0.02)
    assert apart.effective == 400


def test_a_number_that_no_count_gives_is_noticed():
    assert whole_number_fits(0.62, 250, 1, 2)
    assert whole_number_fits(0.696, 250, 1, 3)
    assert not whole_number_fits(0.695, 250, 1, 3)
    assert whole_number_fits(0.695, 250, 4, 3)
    assert not whole_number_fits(0.1095, 250, 5, 4), "RWKV's 10.95 at 16K in vt"
