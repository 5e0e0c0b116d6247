"""Each rule on continuations of which it is known what is right."""

import pytest

from lcprobe.probing.explain.scorers import RULES, SCORERS, combined, right_references
from lcprobe.probing.frozen import substring_score

CASES = {
    # continuation: the rules under which 4071 is right
    " 4071": {"prefix", "substring", "exact", "first_line", "first_word"},
    " 4071.": {"prefix", "substring", "first_line", "first_word"},
    " 4071; the sun is yellow": {"prefix", "substring", "first_line", "first_word"},
    " 40715": {"prefix", "substring", "first_line"},
    "\n4071\nand more": {"prefix", "substring", "first_line", "first_word"},
    " the number 4071": {"substring", "first_line"},
    " not 40\n 4071": {"substring"},
    " 407": set(),
    "": set(),
}


@pytest.mark.parametrize(("text", "rules"), CASES.items())
def test_which_rules_call_a_continuation_right(text, rules):
    assert {name for name in RULES if right_references(name, text, ["4071"], None) == [True]} == rules


def test_substring_is_rulers_rule_and_ignores_case():
    for text in [*CASES, " ABC def", " x\x01y"]:
        for references in (["4071"], ["abc", "DEF"], ["abc", "zzz"]):
            right = right_references("substring", text, references, None)
            assert combined(right, "mean") == substring_score(text, references, "all")
            assert combined(right, "any") == substring_score(text, references, "part")


def test_ours_are_the_first_tokens_where_these_are_known():
    assert right_references("ours", " the number 4071", ["4071"], True) == [True]
    assert right_references("ours", " 4071", ["4071"], False) == [False]
    assert right_references("ours", " 4071 x", ["4071"], None) == [True]


def test_answers_of_a_sample_are_combined_as_named():
    assert [combined([True, False], rule) for rule in ("mean", "all", "any")] == [0.5, 0, 1]
    assert set(SCORERS) == {"ours", *RULES}
