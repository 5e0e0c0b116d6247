"""Scoring: what a model makes of the answer to each question, by teacher forcing or by greedy decoding.

Teacher forced exact match holds iff the argmax at every answer position is the answer's token, given the right ones before
it; greedy decoding follows the answer until its first miss, so the two agree on every sample. What prompts have in common is
read once (inference/prefix_sharing.py), and every question goes on from a copy of the state after its prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.inference.chunk_selection import selected
from lcprobe.probing.inference.prefill import prefill
from lcprobe.probing.inference.prefix_sharing import Program, plan_prefill
from lcprobe.probing.inference.token_scores import score_tokens
from lcprobe.tasks.episode import Episode, Query
from lcprobe.tasks.text.tokenizer import Tokenizer

SURE = 0.99
"""Probability that a policy without a model puts on every token it prints."""


@dataclass(frozen=True)
class Item:
    """One question of one episode."""

    episode: Episode
    query: Query

    @property
    def number(self) -> int:
        """Which question of the episode this is, 0 first."""
        return next(i for i, query in enumerate(self.episode.queries) if query is self.query)

    @property
    def prompt(self) -> np.ndarray:
        """Everything before the answer."""
        return self.episode.sequence(self.query)[: self.query.start]

    @property
    def answer(self) -> np.ndarray:
        """The answer's ids."""
        return self.episode.sequence(self.query)[self.query.start :]


@dataclass(frozen=True)
class Score:
    """What is recorded of one question."""

    exact: bool
    first_token: bool
    token_accuracy: float
    log_likelihood: float
    rank: int
    distractor_hit: bool
    prediction: str
    read_tokens: int | None = None
    """Prompt tokens read for this question and for none before it; null where nothing is read."""


class Scorer(Protocol):
    """Anything that can be probed: a model behind `ModelScorer`, or an oracle with a planted defect."""

    def score(self, items: list[Item]) -> list[Score]:
        """Scores of questions, in their order. Those with a common beginning come together."""
        ...


class ModelScorer:
    """Scores with a model: teacher forced, or by greedy decoding."""

    def __init__(
        self,
        model: ProbedModel,
        tokenizer: Tokenizer,
        device: torch.device | str,
        chunk: int,
        generate: bool = False,
        batch_tokens: int = ProbeConfig.batch_tokens,
    ):
        self.model, self.tokenizer, self.device = model, tokenizer, torch.device(device)
        self.chunk, self.generate, self.batch_tokens = chunk, generate, batch_tokens

    @torch.inference_mode()
    def score(self, items: list[Item]) -> list[Score]:
        """items: questions with prompts of any lengths. Memory: one chunk's activations, and states of at most
        batch_tokens / length rows, with few that wait.
        """
        rooms = [len(item.answer) for item in items]
        whole = [item.prompt for item in items]
        prompts, spent = selected(self.model, whole, rooms, self.chunk, self.device, self.batch_tokens)
        program = self.plan(prompts)
        scores: dict[int, Score] = {}
        length = max(len(item.episode.ids) for item in items)  # of a unit, all are of one length
        for ended, state, last in prefill(self.model, program, prompts, self.chunk, self.device, length):
            for number, score in zip(ended, self._answers([items[i] for i in ended], state, last), strict=True):
                scores[number] = replace(score, read_tokens=int(program.new[number] + spent[number]))
        return [scores[i] for i in range(len(items))]

    def plan(self, prompts: list[np.ndarray]) -> Program:
        """How prompts are read: in as many rows as batch_tokens allows at their length."""
        return plan_prefill(prompts, self.batch_tokens // max(map(len, prompts)))

    def _answers(self, items: list[Item], state: Any, last: Tensor) -> list[Score]:
        """Scores of items from the states after their prompts and the hidden vectors of their last tokens."""
        rows, ids, lengths = _choices(items)
        at = torch.from_numpy(rows).to(self.device)
        likelihood, right = self._continue(state.rows(at), last[at], ids.to(self.device))
        likelihood, right = likelihood.cpu().numpy(), right.cpu().numpy()
        first_of = np.searchsorted(rows, np.arange(len(items)))  # the true answer is each item's first choice
        exact = np.array([bool(right[i, : lengths[i]].all()) for i in first_of])
        missed = np.arange(len(items)) if self.generate else np.flatnonzero(~exact)
        longest = max((int(lengths[first_of[i]]) for i in missed), default=0)
        greedy = self._greedy(state, last, missed, longest)
        scores = []
        for number, item in enumerate(items):
            i, n = first_of[number], len(item.answer)
            said = greedy[number][:n] if number in greedy else item.answer
            stop = first_of[number + 1] if number + 1 < len(items) else len(rows)
            choices = [likelihood[j, : lengths[j]] for j in range(i, stop)]
            exact_here = bool(np.array_equal(said, item.answer)) if self.generate else bool(exact[number])
            scores.append(scored(item, said, right[i, :n], choices, exact_here, self.tokenizer))
        return scores

    def _continue(self, state: Any, last: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood and argmax hit of each token of ids (n, width), given the tokens before it."""
        hidden = last[:, None]
        if ids.shape[1] > 1:
            more, _ = self.model.hidden(ids[:, :-1], state=state)
            hidden = torch.cat([hidden, more], dim=1)
        return score_tokens(self.model, hidden, ids)

    def _greedy(self, state: Any, last: Tensor, which: np.ndarray, steps: int) -> dict[int, np.ndarray]:
        """Greedy continuations of `steps` tokens for some rows of the batch."""
        if not len(which):
            return {}
        at = torch.from_numpy(which).to(self.device)
        state, hidden = state.rows(at), last[at]
        made = []
        for step in range(steps):
            token = self.model.logits(hidden).argmax(-1)
            made.append(token)
            if step + 1 < steps:
                out, state = self.model.hidden(token[:, None], state=state)
                hidden = out[:, -1]
        ids = torch.stack(made, dim=1).cpu().numpy()
        return {int(row): ids[i] for i, row in enumerate(which)}


def scored(
    item: Item, said: np.ndarray, right: np.ndarray, choices: Sequence[np.ndarray], exact: bool, tokenizer: Tokenizer
) -> Score:
    """The scores of one question, the same for a model and for a policy without one.

    said: ids that were printed, as many as the answer has. right: (n_answer,) whether each answer token is the first choice.
    choices: log-likelihoods of the tokens of every candidate, the true one first.
    """
    means = np.array([tokens.mean() for tokens in choices])
    seen = int(np.argmax(~tokenizer.is_blank[item.answer]))  # a lone leading space tells nothing
    hit = any(len(c) <= len(said) and np.array_equal(said[: len(c)], c) for c in item.query.candidates[1:])
    return Score(
        exact=exact,
        first_token=bool(right[seen]),
        token_accuracy=float(right.mean()),
        log_likelihood=float(choices[0].sum()),
        rank=1 + int((means[1:] > means[0]).sum()),
        distractor_hit=bool(hit and not exact),
        prediction=tokenizer.decode(np.asarray(said)).strip(),
    )


def scored_text(item: Item, text: str, tokenizer: Tokenizer) -> Score:
    """The scores of printing `text` as the answer, with SURE on each of its tokens. Nothing is printed for an empty text."""
    known = {tokenizer.decode(c).strip(): c for c in item.query.candidates}
    ids = known[text] if text in known else tokenizer.piece(" " + text) if text else np.array([], dtype=np.int32)
    said = ids[: len(item.answer)]
    choices = [np.log(np.where(_agrees(ids, c), SURE, 1 - SURE)) for c in item.query.candidates]
    return scored(item, said, _agrees(ids, item.answer), choices, bool(np.array_equal(said, item.answer)), tokenizer)


def _agrees(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    n = min(len(ids), len(wanted))
    return np.concatenate([ids[:n] == wanted[:n], np.zeros(len(wanted) - n, dtype=bool)])


def _choices(items: list[Item]) -> tuple[np.ndarray, Tensor, np.ndarray]:
    """Every candidate of every item: its item (n,), ids padded to one width (n, width), and length (n,)."""
    rows, choices = [], []
    for number, item in enumerate(items):
        rows += [number] * len(item.query.candidates)
        choices += item.query.candidates
    width = max(map(len, choices))
    ids = np.zeros((len(choices), width), dtype=np.int64)  # padding follows the answer and changes nothing before it
    for i, choice in enumerate(choices):
        ids[i, : len(choice)] = choice
    return np.array(rows), torch.from_numpy(ids), np.array([len(c) for c in choices])
