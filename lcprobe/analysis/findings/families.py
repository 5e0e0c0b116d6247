"""Families of tests that are fixed in advance: Holm's correction inside each, and when a difference is resolved."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from lcprobe.analysis.stats.exact_tests import ALPHA, holm


class _Tested(Protocol):
    @property
    def family(self) -> str: ...
    @property
    def p(self) -> float | None: ...


T = TypeVar("T", bound=_Tested)


def holm_adjusted(declared: Sequence[T]) -> list[T]:
    """Tests (dataclasses) with p_holm; those without a p-value are not members of their family."""
    adjusted = list(declared)
    for family in dict.fromkeys(test.family for test in declared):
        members = [(i, test.p) for i, test in enumerate(declared) if test.family == family and test.p is not None]
        for (i, _), p_holm in zip(members, holm([p for _, p in members]), strict=True):
            adjusted[i] = replace(declared[i], p_holm=p_holm)  # type: ignore[type-var]
    return adjusted


def is_resolved(p_holm: float | None, seeds: tuple[float, float] | None) -> bool:
    """Whether a difference is significant after Holm's correction, and over seeds if there are several."""
    over_seeds = seeds is None or seeds[0] > 0 or seeds[1] < 0
    return p_holm is not None and p_holm < ALPHA and over_seeds
