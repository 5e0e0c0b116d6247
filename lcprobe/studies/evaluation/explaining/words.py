"""The sentences of `lcprobe explain`."""

from collections.abc import Mapping

from lcprobe.analysis.accounts import Decision, decimals
from lcprobe.probing.explain.config import ExplainConfig
from lcprobe.probing.explain.outputs import OutputFacts
from lcprobe.probing.explain.protocol import Protocol

MAX_LISTED = 5
"""Changes of several that the sentence names."""
NEAR = 0.02
"""Relative difference within which a mean length is the asked one."""


def verdict_sentence(
    decision: Decision,
    says: Mapping[str, str],
    readings: Mapping[str, Protocol],
    wanted: ExplainConfig,
    with_outputs: bool,
) -> str:
    """One sentence: what would account for the difference, of how many changes, and what would decide."""
    level = f"p = {decision.ours.p:.3g}, alpha {wanted.alpha:g}"
    if decision.verdict == "noise":
        return f"nothing to explain: sampling noise accounts for the difference ({level})"
    named = decision.named
    n = len(decision.accounts) if decision.verdict == "none" else decision.tried
    tried = f"{n} change{'' if n == 1 else 's'} tried"
    if decision.verdict == "none":
        would = "; their prompts and continuations (outputs=FILE) would show what else differs"
        return (
            f"unexplained: it is no sampling noise ({level}), and none of the {tried} would account for it"
            f"{' and fits their outputs' if with_outputs else would}"
        )
    tried += " that fit their outputs" if with_outputs else ""
    same = len(named) > 1 and len({readings[a.name] for a in named}) == 1
    fact = "Their continuations (outputs=FILE)" if same else "Their prompts and continuations (outputs=FILE)"
    numbers = "" if len(wanted.lengths) > 2 else ", or their numbers at other lengths (length=[..] theirs=[..]),"
    decides = "" if with_outputs else f". {fact}{'' if decision.verdict == 'one' else numbers} would decide"
    if decision.verdict == "one":
        alone = (
            f"{named[0].name} would account for the difference, alone of the {tried}: theirs {says[named[0].name]}"
        )
        shares = (
            f"by {_these(wanted)} alone its share is {named[0].share:.0%}, that of something else {decision.rest:.0%}"
        )
        return f"{alone}; {shares}{decides}; it is no noise ({level})"
    listed = "; ".join(f"{a.name} ({a.share:.0%}): theirs {says[a.name]}" for a in named[:MAX_LISTED])
    more = len(named) - MAX_LISTED
    listed += f"; {more} more ({sum(a.share for a in named[MAX_LISTED:]):.0%})" if more > 0 else ""
    cannot = f"{_these(wanted)} cannot tell {'it' if len(named) == 1 else 'them'}"
    by_chance = " from coincidence, since of so many some come close to any number"
    cannot += by_chance if decision.verdict == "coincidence" else " apart"
    listed += f"; something else ({decision.rest:.0%})"
    start = f"{len(named)} of the {tried} would account for the difference, and {cannot}, likeliest first: {listed}"
    return f"{start}{decides}; it is no noise ({level})"


def output_sentences(facts: OutputFacts, wanted: ExplainConfig) -> list[str]:
    """What their file shows."""
    lines, value = [], wanted.numbers[0]
    digits = decimals(value)
    numbers = ", ".join(f"{_rule(*key)} {number:.4g}" for key, number in facts.numbers.items())
    lines.append(f"their {facts.n} continuations scored here: {numbers}")
    exact = facts.reproduced(value, digits)
    if exact:
        rules = " or ".join(_rule(*key) for key in exact)
        described = wanted.scorer or "prefix"
        ours = described in {scorer for scorer, _ in exact} | ({"ours"} if ("prefix", "mean") in exact else set())
        which = "as described, so that the scorer is not the cause" if ours else "so that the scorer is a cause"
        lines.append(f"certain: {value:g} is what {rules} gives on their continuations, {which}")
    else:
        lines.append(f"no scorer gives {value:g} on their continuations: the number is not of this file")
    length = wanted.lengths[0]
    within = [
        f"{_unit(name)}{' with what was generated' if budget else ''} ({tokens + budget:.0f})"
        for name, tokens in facts.tokens.items()
        for budget in (0.0, facts.continuation_tokens)
        if abs(tokens + budget - length) <= NEAR * length
    ]
    own = f"their prompts have {facts.tokens['']:.0f} tokens of the model's"
    lines.append(f"{own}; {length} is their length in {' or '.join(within) if within else 'no unit that was tried'}")
    if facts.begin:
        lines.append(f"{facts.begin:.0%} of their prompts begin with the begin token as text: read, it would be two")
    for kind, names in (("chat template", facts.templates), ("instruction", facts.wrappers)):
        if names:
            lines.append(f"their prompts have the {kind} {' or '.join(names)}")
    return lines


def _these(wanted: ExplainConfig) -> str:
    return "this number" if len(wanted.lengths) == 1 else "these numbers"


def _rule(scorer: str, combine: str) -> str:
    return scorer if combine == "mean" else f"{scorer} ({combine} of the answers)"


def _unit(name: str) -> str:
    return name or "tokens of the model's"
