"""Claims of a report, and the one error rate for all of them.

The p of a claim is the larger of its p over samples and, where there are several, over training seeds. Claims stand
in a tree, and the report's 5 % is handed down from its root:

    report                  to its branches by SHARES: models against each other, each model by itself, what each
                            model can do, and effective length against training length
    branch                  equally to its families, which are fixed in advance
    family                  equally to its claims
    claim, once found       to the claims that stand behind it: single lengths behind the difference of two models
                            over all of them, single cells behind their length; each step of an effective length
                            behind the one before (a fixed sequence), so that "at least" is a finding, too

A share is divided among the parts that are not finished, that is found with all that is behind them: Holm's (1979)
step-down at every level. At no point do the claims that are not found yet share more than 5 %, and no share becomes
smaller when a claim is found, so that any false finding at all is in at most 5 % of reports, whatever else is true in
them (sequential rejection: Goeman & Solari 2010, Annals of Statistics 38, 3782-3810). Holm inside every family and
over families by their least p would only do so where nothing is true: each family with a true finding errs by itself.

What a model can do, that it has acquired a task and its key look-up, are gates: what is claimed about how it uses the
context (`given`) is a finding only where they are. That takes findings away and adds none.

A joint claim (lost in the middle: both ends above the middle) has no test of its own: it is found where all that it
needs are. `python -m validation null_reports` simulates whole reports.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from lcprobe.analysis.stats.multiplicity import ALPHA

Branch = Literal["models against each other", "each model by itself", "what each model can do", "training length"]
SHARES: dict[Branch, float] = {
    "models against each other": 3,
    "each model by itself": 1,
    "what each model can do": 1,
    "training length": 3,
}
"""Relative shares of the branches that a report has. A few training seeds give no small p-values, as hundreds of
samples do: what is tested over seeds has the larger part."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What may become a finding of the report.

    p: over samples; None where nothing is tested. p_seeds: over training seeds, None with one. name: for the claims
    that stand behind it or need it. behind: name of the claim that it stands behind, earlier in the list; empty: at
    the top of its family. needs: names of the claims of which it is the joint one. given: names of the gates
    without which it is no finding, of those that there are. parts: further claims of the same object. p_report: p
    corrected over the report, set by `corrected`, that of its parts, too. share: of a claim that is not found, the
    part of the report's error rate at which it was decided; None where what it stands behind is not found.
    """

    branch: Branch = "each model by itself"
    family: str = ""
    p: float | None = None
    p_seeds: float | None = None
    name: str = ""
    behind: str = ""
    needs: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    parts: tuple["Claim", ...] = ()
    p_report: float | None = None
    share: float | None = None

    @property
    def resolved(self) -> bool:
        """Whether it is a finding of the report."""
        return self.p_report is not None and self.p_report < ALPHA

    @property
    def holds(self) -> bool:
        """The same; before the correction, by its own p."""
        p = self.p if self.p_report is None else self.p_report
        return p is not None and p < ALPHA


def gates_of(panel: object) -> tuple[str, str]:
    """Names of the claims that a panel's task is acquired, and its key look-up."""
    return f"task acquired: {panel}", f"key look-up: {panel}"


T = TypeVar("T", bound=Claim)


class _Node:
    """A claim, or a part of the report, which counts as found. score: the least p of what is open in it, times the
    number of parts that share at each level; infinite where it is finished.

    Its open parts are in a heap by their scores: a report of 45 models has thousands of them in one family, and each
    is found by itself. An entry counts as long as it has the score of its part.
    """

    def __init__(self, p: float = 0.0, found: bool = True):
        self.p, self.found, self.score = p, found, math.inf
        self.parts: list[_Node] = []
        self.parent: _Node | None = None
        self._place, self._open, self._heap = 0, 0, list[tuple[float, int]]()

    def add(self, part: "_Node") -> "_Node":
        part.parent, part._place = self, len(self.parts)
        self.parts.append(part)
        return part

    def weight_of(self, part: "_Node") -> float:
        """The relative share of a part."""
        return 1.0

    def next_part(self) -> "_Node":
        """The part in which the next claim is found."""
        return self.parts[self._heap[0][1]]

    def set_up(self) -> None:
        """Scores of all that is in it, and its own."""
        for part in self.parts:
            part.set_up()
        self._heap = [(part.score, part._place) for part in self.parts if part.score < math.inf]
        self._open = len(self._heap)
        heapq.heapify(self._heap)
        self._rescore()

    def find(self) -> None:
        """Count it as found, here and in all that it is a part of."""
        self.found, before, node = True, self.score, self
        node._rescore()
        while (parent := node.parent) is not None:
            whole = parent.score
            parent._open -= (before < math.inf) - (node.score < math.inf)
            if node.score < math.inf:
                heapq.heappush(parent._heap, (node.score, node._place))
            parent._rescore()
            node, before = parent, whole

    def _rescore(self) -> None:
        if not self.found:
            self.score = self.p
            return
        heap = self._heap
        while heap and self.parts[heap[0][1]].score != heap[0][0]:
            heapq.heappop(heap)
        self.score = self._open * heap[0][0] if heap else math.inf


class _Report(_Node):
    """The whole report, whose parts have shares of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[float] = []

    def weight_of(self, part: _Node) -> float:
        return self.weights[part._place]

    def next_part(self) -> _Node:
        return min(self.parts, key=lambda part: part.score / self.weight_of(part))

    def _rescore(self) -> None:
        open_ = [part for part in self.parts if part.score < math.inf]
        total = sum(map(self.weight_of, open_))
        self.score = min((total / self.weight_of(part) * part.score for part in open_), default=math.inf)


def corrected(claims: Sequence[T]) -> list[T]:
    """All claims of one report with p_report; those without a p-value take no share."""
    flat = iter(_corrected([one for claim in claims for one in (claim, *claim.parts)]))
    whole = []
    for claim in claims:
        own = next(flat)
        parts = tuple(next(flat) for _ in claim.parts)
        whole.append(replace(claim, p_report=own.p_report, share=own.share, parts=parts))
    return whole


def _corrected(claims: Sequence[Claim]) -> list[Claim]:
    """The same for a list without parts."""
    root, parts, nodes, names = _Report(), dict[tuple[str, ...], _Node](), dict[int, _Node](), dict[str, int]()
    for i, claim in enumerate(claims):
        if claim.name:
            names[claim.name] = i
        if claim.p is None or claim.needs:
            continue
        place = _part(root, parts, claim) if not claim.behind else nodes.get(names[claim.behind])
        if place is not None:  # what stands behind a claim that was not tested is not found
            nodes[i] = place.add(_Node(max(claim.p, claim.p_seeds or 0.0), found=False))
    p_report, shares = _p_values(root, nodes)
    adjusted = []
    for i, claim in enumerate(claims):
        if claim.p is not None:
            of = [names[name] for name in claim.needs] or [i]
            of += [names[name] for name in claim.given if name in names]
            p = max([p_report.get(j, 1.0) for j in of] + ([claim.p] if claim.needs else []))
            claim = replace(claim, p_report=p, share=shares.get(i))
        adjusted.append(claim)
    return adjusted


def _part(root: _Report, parts: dict[tuple[str, ...], _Node], claim: Claim) -> _Node:
    """The node of a claim's family."""
    branch = (claim.branch,)
    if branch not in parts:
        parts[branch] = root.add(_Node())
        root.weights.append(SHARES[claim.branch])
    family = (*branch, claim.family)
    if family not in parts:
        parts[family] = parts[branch].add(_Node())
    return parts[family]


def _p_values(root: _Node, nodes: dict[int, _Node]) -> tuple[dict[int, float], dict[int, float]]:
    """Corrected p of every claim: the report's error rate at which it is found, in the order in which they are. And
    the shares of those that are not found at ALPHA."""
    index_of = {id(node): i for i, node in nodes.items()}
    root.set_up()
    found: dict[int, float] = {}
    shares: dict[int, float] | None = None
    reached = 0.0
    while root.score < 1:
        if shares is None and root.score >= ALPHA:
            shares = {index_of[id(leaf)]: share for leaf, share in _open_leaves(root, 1.0)}
        reached = max(reached, root.score)
        node = root
        while node.found:
            node = node.next_part()
        found[index_of[id(node)]] = reached
        node.find()
    if shares is None:
        shares = {index_of[id(leaf)]: share for leaf, share in _open_leaves(root, 1.0)}
    return found, shares


def _open_leaves(node: _Node, share: float) -> Iterator[tuple[_Node, float]]:
    """Claims that may be found next, each with its part of the share of `node`."""
    if not node.found:
        yield node, share
        return
    open_ = [part for part in node.parts if part.score < math.inf]
    total = sum(map(node.weight_of, open_))
    for part in open_:
        yield from _open_leaves(part, share * node.weight_of(part) / total)
