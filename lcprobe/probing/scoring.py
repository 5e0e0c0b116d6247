"""Scoring a model's answer to each question, by teacher forcing or by greedy decoding.

Teacher forced exact match holds iff the argmax at every answer position is the answer's token, given the right ones
before it; greedy decoding follows the answer until its first miss, so the two agree on every sample. Shared prefixes
of prompts are read once (inference/prefix_sharing.py), and every answer continues from a copy of the state after its
prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from lcprobe_kernels.transfer import sent
from torch import Tensor

from lcprobe.lengths import MAX_TOKENS
from lcprobe.models.state import tensors_of
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.engines.contract import ProbedModel, ProbedState
from lcprobe.probing.inference.chunk_selection import select_chunks
from lcprobe.probing.inference.prefill import picked, prefill
from lcprobe.probing.inference.prefix_sharing import Program, plan_prefill, plan_whole
from lcprobe.probing.inference.token_scores import score_tokens
from lcprobe.probing.substring import Continuation, substring_score
from lcprobe.tasks.episode import Episode, Query
from lcprobe.tasks.text.tokenizer import Tokenizer

COPIED_BYTES = 4 << 30
"""Of states that are copied at once for the candidates of answers: one of a long prompt may take gigabytes."""
CONFIDENCE = 0.99
"""Probability that a scorer without a model assigns to every token it prints."""


@dataclass(frozen=True)
class Item:
    """One question of one episode. continuation: what is printed besides the answer; None: nothing."""

    episode: Episode
    query: Query
    continuation: Continuation | None = None

    @property
    def number(self) -> int:
        """The index of the question in its episode."""
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
    """The scores of one question, as recorded."""

    exact: bool
    first_token: bool
    token_accuracy: float
    log_likelihood: float
    rank: int
    distractor_hit: bool
    prediction: str
    continuation: str | None = None
    """Greedy text after the prompt, where the item asks for one."""
    substring: float | None = None
    """Share of the references in it."""
    read_tokens: int | None = None
    """Prompt tokens read for this question and for none before it; null for scorers that read nothing."""


class Scorer(Protocol):
    """Anything that answers questions: a model in a `ModelScorer`, a policy, or an oracle with a planted defect."""

    def score(self, items: list[Item]) -> list[Score]:
        """Scores of questions, in their order. The caller puts those with a shared prefix together."""
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
        self.generate, self.batch_tokens = generate, batch_tokens
        self.chunk = MAX_TOKENS if model.rereads else chunk

    @torch.inference_mode()
    def score(self, items: list[Item]) -> list[Score]:
        """items: questions with prompts of any lengths. Memory: one chunk's activations, and the states of
        batch_tokens / length rows and of a few waiting prefixes.
        """
        lengths = [len(item.episode.ids) for item in items]
        if self.model.needs_length and len({*lengths}) > 1:  # the length that is declared is that of each sequence
            by_length = [[i for i, n in enumerate(lengths) if n == length] for length in sorted({*lengths})]
            parts = [zip(some, self.score([items[i] for i in some]), strict=True) for some in by_length]
            return [score for _, score in sorted((pair for part in parts for pair in part), key=lambda p: p[0])]
        rooms = [len(item.answer) for item in items]
        whole = [item.prompt for item in items]
        prompts, extra_tokens = select_chunks(self.model, whole, rooms, self.chunk, self.device, self.batch_tokens)
        program = self.plan(prompts)
        scores: dict[int, Score] = {}
        for ended, state, last in prefill(self.model, program, prompts, self.chunk, self.device, max(lengths)):
            for number, score in zip(
                ended, self._answers([items[i] for i in ended], state, last, max(lengths)), strict=True
            ):
                scores[number] = replace(score, read_tokens=int(program.new[number] + extra_tokens[number]))
            del state  # what is read next has its room
        return [scores[i] for i in range(len(items))]

    def plan(self, prompts: list[np.ndarray]) -> Program:
        """The program that reads prompts, in as many rows as batch_tokens allows at their length."""
        plan = plan_whole if self.model.rereads else plan_prefill
        return plan(prompts, self.batch_tokens // max(map(len, prompts)))

    def _answers(self, items: list[Item], state: ProbedState, last: Tensor, declared: int) -> list[Score]:
        """Scores of items, from the states after their prompts and the hidden vectors of the prompts' last tokens.
        declared: the length of the sequences, for models that need it."""
        rows, ids, lengths = _choices(items)
        state = self.model.prompt_ended(state)
        likelihood, right = self._candidates(state, last, rows, sent(ids, self.device))
        likelihood, right = likelihood.cpu().numpy(), right.cpu().numpy()
        first_of = np.searchsorted(rows, np.arange(len(items)))  # the true answer is each item's first choice
        exact = np.array([bool(right[i, : lengths[i]].all()) for i in first_of])
        missed = np.arange(len(items)) if self.generate else np.flatnonzero(~exact)
        longest = max((int(lengths[first_of[i]]) for i in missed), default=0)
        more = [self._continuation_tokens(item, declared) for item in items]
        decoded = np.union1d(missed, np.flatnonzero(more))
        greedy = self._greedy(state, last, decoded, max(longest, *more))
        scores = []
        for number, item in enumerate(items):
            i, n = first_of[number], len(item.answer)
            printed = greedy[number][:n] if number in missed else item.answer
            stop = first_of[number + 1] if number + 1 < len(items) else len(rows)
            choices = [likelihood[j, : lengths[j]] for j in range(i, stop)]
            exact_here = bool(np.array_equal(printed, item.answer)) if self.generate else bool(exact[number])
            text = printed_text(greedy[number][: more[number]], self.tokenizer) if more[number] else None
            scores.append(score_answer(item, printed, right[i, :n], choices, exact_here, self.tokenizer, text))
        return scores

    def _continuation_tokens(self, item: Item, declared: int) -> int:
        """Greedy tokens that an item asks for, as far as the model's positions go; declared: the length that was
        declared, for models that need it."""
        if item.continuation is None:
            return 0
        end = declared if self.model.needs_length else self.model.max_length
        return item.continuation.tokens if end is None else min(item.continuation.tokens, end - len(item.prompt))

    def _candidates(self, state: ProbedState, last: Tensor, at: np.ndarray, ids: Tensor) -> tuple[Tensor, Tensor]:
        """`_continue` for the candidates of answers, each from the state at row `at`: as many copies at once as
        COPIED_BYTES allow. A single prompt whose state is larger has two at a time: its own, and the one that a
        candidate continues."""
        size = sum(t.numel() * t.element_size() for t in tensors_of(state)) / len(last)
        n = max(1, int(COPIED_BYTES / max(size, 1)))
        parts = []
        for lo in range(0, len(at), n):
            piece, rows = ids[lo : lo + n], sent(torch.from_numpy(at[lo : lo + n]), self.device)
            parts.append(self._continue(picked(state, at[lo : lo + n], len(last), self.device), last[rows], piece))
        likelihood, right = zip(*parts, strict=True)
        return torch.cat(likelihood), torch.cat(right)

    def _continue(self, state: ProbedState, last: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood and argmax hit of each token of ids (n, width), given the tokens before it."""
        hidden = last[:, None]
        if ids.shape[1] > 1:
            more, _ = self.model.hidden(ids[:, :-1], state=state)
            hidden = torch.cat([hidden, more], dim=1)
        return score_tokens(self.model, hidden, ids)

    def _greedy(self, state: ProbedState, last: Tensor, which: np.ndarray, steps: int) -> dict[int, np.ndarray]:
        """Greedy continuations of `steps` tokens for some rows of the batch."""
        if not len(which):
            return {}
        at = sent(torch.from_numpy(which), self.device)
        state, hidden = picked(state, which, len(last), self.device), last[at]
        tokens = []
        for step in range(steps):
            token = self.model.logits(hidden).argmax(-1)
            tokens.append(token)
            if step + 1 < steps:
                out, state = self.model.hidden(token[:, None], state=state)
                hidden = out[:, -1]
        ids = torch.stack(tokens, dim=1).cpu().numpy()
        return {int(row): ids[i] for i, row in enumerate(which)}


def printed_text(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    """Greedy text, up to where the model ends the document."""
    ends = np.flatnonzero(ids == tokenizer.bos_id)
    return tokenizer.decode(ids[: ends[0]] if len(ends) else ids)


def score_answer(
    item: Item,
    printed: np.ndarray,
    right: np.ndarray,
    choices: Sequence[np.ndarray],
    exact: bool,
    tokenizer: Tokenizer,
    continuation: str | None = None,
) -> Score:
    """The scores of one question, for scorers with and without a model.

    printed: ids, as many as the answer has. right: (n_answer,) whether each answer token is the argmax.
    choices: log-likelihoods of the tokens of every candidate, the true one first. continuation: the text printed
    after the prompt, for items that ask for one. An answer without a likelihood (NaN) is wrong and ranks last.
    """
    means = np.array([tokens.mean() for tokens in choices])
    known = not np.isnan(means[0])
    exact, right = bool(exact and known), right & ~np.isnan(choices[0])
    first = int(np.argmax(~tokenizer.is_blank[item.answer]))  # a leading space on its own is no evidence
    hit = any(len(c) <= len(printed) and np.array_equal(printed[: len(c)], c) for c in item.query.candidates[1:])
    return Score(
        exact=exact,
        first_token=bool(right[first]),
        token_accuracy=float(right.mean()),
        log_likelihood=float(choices[0].sum()),
        rank=1 + int((means[1:] > means[0]).sum()) if known else len(means),
        distractor_hit=bool(hit and not exact),
        prediction=tokenizer.decode(np.asarray(printed)).strip(),
        continuation=continuation,
        substring=_substring(item, continuation),
    )


def scored_text(item: Item, text: str, tokenizer: Tokenizer) -> Score:
    """The scores of printing `text` as the answer, with CONFIDENCE in each of its tokens. An empty text prints
    nothing.
    """
    known = {tokenizer.decode(c).strip(): c for c in item.query.candidates}
    if text in known:
        ids = known[text]
    else:
        ids = tokenizer.piece(" " + text) if text else np.array([], dtype=np.int32)
    printed, right = ids[: len(item.answer)], _agrees(ids, item.answer)
    choices = [np.log(np.where(_agrees(ids, c), CONFIDENCE, 1 - CONFIDENCE)) for c in item.query.candidates]
    said = text if item.continuation else None
    return score_answer(item, printed, right, choices, bool(np.array_equal(printed, item.answer)), tokenizer, said)


def _substring(item: Item, continuation: str | None) -> float | None:
    if item.continuation is None or continuation is None:
        return None
    return substring_score(continuation, item.continuation.references, "all")  # an answer here has no alias


def _agrees(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each wanted token is the one printed at its position."""
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
