"""Continuations of prompts of any lengths: log-likelihoods and greedy text, for prompts from elsewhere.

Nothing is padded on the left, where a recurrent state would see it, and nothing is truncated. Prompts of similar
length go through the model together; a row leaves the batch where its prompt ends, and rows that end together are
continued together. For a model that needs the length of the whole sequence, the length of prompt and continuation is
declared, and prompts of one length go together. A batch that does not fit into memory is split in halves.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from lcprobe_kernels.transfer import sent
from torch import Tensor

from lcprobe.errors import EpisodeError
from lcprobe.lengths import MAX_TOKENS
from lcprobe.probing.engines.contract import Continuations, Ids, ProbedModel, ProbedState
from lcprobe.probing.inference.chunk_selection import select_chunks
from lcprobe.probing.inference.oom import with_oom_backoff
from lcprobe.probing.inference.prefill import initial_state
from lcprobe.probing.inference.token_scores import score_tokens

CONTINUATIONS_PER_CONTEXT = 16
"""Continuations that are scored at once, per context of the batch: halved with it."""


Watch = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Called with the tokens of all prompts of a call; what it opens is told how many are read."""


@contextmanager
def unwatched(total: int) -> Iterator[Callable[[int], None]]:
    """Tells nobody."""
    yield lambda read: None


class Continuer(Continuations):
    """Continues prompts with a model.

    chunk: tokens of a prefill step. batch_tokens: tokens of the prompts in one batch. Prompts past the model's
    `max_length` are refused. A model that `needs_length` gets `new_state(batch, length)`: prompt and the longest
    continuation requested of it. watch: follows each call.
    """

    def __init__(
        self,
        model: ProbedModel,
        device: torch.device | str,
        chunk: int,
        batch_tokens: int,
        watch: Watch = unwatched,
    ):
        self.model, self.device, self.watch = model, torch.device(device), watch
        self.chunk, self.batch_tokens = MAX_TOKENS if model.rereads else chunk, batch_tokens

    @property
    def max_length(self) -> int | None:
        """The model's own."""
        return self.model.max_length

    @torch.inference_mode()
    def likelihoods(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(context, continuation) -> log-likelihood (n,) float32 and argmax hit (n,) bool of each continuation token.

        A context that several pairs share is read once. Continuations are read on from their context, as
        harnesses do: nothing is decoded, and `prompt_ended` is not called. Raises EpisodeError for an empty context
        or continuation, and past the model's max_length.
        """
        shared: dict[tuple[int, ...], list[int]] = {}  # context -> the pairs that have it
        pairs = self._with_selected_contexts(pairs)
        for number, (context, continuation) in enumerate(pairs):
            self._check(context, len(continuation))
            if not len(continuation):
                raise EpisodeError("continuation", "no token", "at least one token to score")
            shared.setdefault(tuple(int(i) for i in context), []).append(number)
        results: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(pairs)
        contexts = list(shared)
        longest = [max(len(pairs[number][1]) for number in numbers) for numbers in shared.values()]

        def likelihoods(batch: list[int]) -> list[bool]:
            for rows, state, last in self.prefill(
                batch, [contexts[i] for i in batch], self._declared(batch[0], contexts, longest)
            ):
                waiting = [(row, number) for row, which in enumerate(rows) for number in shared[contexts[which]]]
                size = max(
                    1, min(self.batch_tokens // len(contexts[rows[0]]), len(batch) * CONTINUATIONS_PER_CONTEXT)
                )
                for lo in range(0, len(waiting), size):
                    part = waiting[lo : lo + size]
                    at = sent(torch.tensor([row for row, _ in part]), self.device)
                    numbers = [number for _, number in part]
                    scored = self._scored(state.rows(at), last[at], [pairs[number][1] for number in numbers])
                    for number, scores in zip(numbers, scored, strict=True):
                        results[number] = scores
            return [True] * len(batch)

        self._in_batches(likelihoods, contexts, longest)
        return results

    @torch.inference_mode()
    def greedy(
        self, prompts: Sequence[Ids], steps: Sequence[int], done: Callable[[int, list[int]], bool]
    ) -> list[list[int]]:
        """Greedy continuations, at most steps[i] tokens for prompt i; `done(i, ids so far)` ends one early.

        Raises EpisodeError for an empty prompt, and past the model's max_length.
        """
        prompts = self._selected(prompts, steps)
        for prompt, n in zip(prompts, steps, strict=True):
            self._check(prompt, n)
        decoded: list[list[int]] = [[] for _ in prompts]

        def decode(batch: list[int]) -> list[bool]:
            for number in batch:  # a batch that ran out of memory starts again
                decoded[number] = []
            for rows, state, hidden in self.prefill(
                batch, [prompts[i] for i in batch], self._declared(batch[0], prompts, steps)
            ):
                active, state = list(rows), self.model.prompt_ended(state)
                while active:
                    token = self.model.logits(hidden).argmax(-1)
                    for number, one in zip(active, token.tolist(), strict=True):
                        decoded[number].append(one)
                    keep = [i for i, n in enumerate(active) if len(decoded[n]) < steps[n] and not done(n, decoded[n])]
                    if len(keep) < len(active):
                        at = sent(torch.tensor(keep, dtype=torch.long), self.device)
                        active, state, token = [active[i] for i in keep], state.rows(at), token[at]
                    if active:
                        out, state = self.model.hidden(token[:, None], state=state)
                        hidden = out[:, -1]
            return [True] * len(batch)

        self._in_batches(decode, prompts, steps)
        return decoded

    def _with_selected_contexts(self, pairs: Sequence[tuple[Ids, Ids]]) -> Sequence[tuple[Ids, Ids]]:
        """Pairs with the piece that is read in place of each context: the same one for all of its continuations."""
        if self.model.selection is None:
            return pairs
        longest: dict[tuple[int, ...], int] = {}
        for context, continuation in pairs:
            key = tuple(int(i) for i in context)
            longest[key] = max(longest.get(key, 0), len(continuation))
        read = dict(zip(longest, self._selected(list(longest), list(longest.values())), strict=True))
        return [(read[tuple(int(i) for i in context)], continuation) for context, continuation in pairs]

    def _selected(self, prompts: Sequence[Ids], more: Sequence[int]) -> list[Ids]:
        """The piece that is read in place of each prompt; the whole prompt unless the model reads pieces."""
        arrays = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
        return list(select_chunks(self.model, arrays, more, self.chunk, self.device, self.batch_tokens)[0])

    def _declared(self, number: int, prompts: Sequence[Ids], more: Sequence[int]) -> int | None:
        """The length that is declared for a prompt and what may follow it; None for a model that does not need it."""
        return len(prompts[number]) + more[number] if self.model.needs_length else None

    def _in_batches(
        self, work: Callable[[list[int]], list[bool]], prompts: Sequence[Ids], more: Sequence[int]
    ) -> None:
        """Call `work` on all prompts, by number: longest batches first, shortest prompts first within one, in halves
        on OOM.

        more: tokens that may follow each prompt; where the length is declared, prompts of one length go together.
        Raises EpisodeError for a prompt that does not fit alone.
        """
        lengths = [self._declared(i, prompts, more) for i in range(len(prompts))]
        order = sorted(
            range(len(prompts)), key=lambda i: (-len(prompts[i]), -more[i] if lengths[i] is not None else 0)
        )
        total = sum(map(len, prompts))
        with self.watch(total) as tell:
            while order:
                tell(total - sum(len(prompts[i]) for i in order))
                longest = len(prompts[order[0]])
                size = max(1, self.batch_tokens // longest)
                if lengths[order[0]] is not None:
                    same = (len(prompts[i]) == longest and lengths[i] == lengths[order[0]] for i in order)
                    size = min(size, sum(same))
                batch, order = order[:size][::-1], order[size:]
                if None in with_oom_backoff(work, batch, longest)[0]:
                    raise EpisodeError("length", f"{longest} tokens", "prompts that fit into memory one at a time")
            tell(total)

    def prefill(
        self, which: list[int], prompts: list[Ids], length: int | None
    ) -> Iterator[tuple[list[int], ProbedState, Tensor]]:
        """One pass in chunks that also end where a prompt ends. prompts: shortest first. length: declared for all.

        Yields the numbers of prompts that end together, the state after them, and their last hidden vectors.
        """
        ids = np.zeros((len(prompts), len(prompts[-1])), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
        tokens = sent(torch.from_numpy(ids), self.device)
        ends = sorted({len(p) for p in prompts} | set(range(self.chunk, ids.shape[1], self.chunk)))
        state = initial_state(self.model, len(prompts), length)
        lo = 0
        for hi in ends:
            hidden, state = self.model.hidden(tokens[:, lo:hi], state=state)
            n_ended = sum(len(p) == hi for p in prompts)
            if n_ended:
                rows = torch.arange(len(prompts), device=self.device)
                yield which[:n_ended], state.rows(rows[:n_ended]), hidden[:n_ended, -1]
                which, prompts, tokens = which[n_ended:], prompts[n_ended:], tokens[n_ended:]
                state = state.rows(rows[n_ended:])
            lo = hi

    def _scored(
        self, state: ProbedState, last: Tensor, continuations: list[Ids]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Log-likelihood and argmax hit of each token of each continuation."""
        width = max(map(len, continuations))
        ids = np.zeros((len(continuations), width), dtype=np.int64)  # padding follows and changes nothing before it
        for row, continuation in enumerate(continuations):
            ids[row, : len(continuation)] = continuation
        tokens, parts = sent(torch.from_numpy(ids), self.device), []
        hidden = last[:, None]
        for lo in range(0, width, self.chunk):
            part = tokens[:, lo : lo + self.chunk]
            more, state = self.model.hidden(part, state=state)
            parts.append(score_tokens(self.model, torch.cat([hidden, more[:, :-1]], dim=1), part))
            hidden = more[:, -1:]
        likelihood, right = (torch.cat(p, dim=1).cpu().numpy() for p in zip(*parts, strict=True))
        return [(likelihood[row, : len(c)], right[row, : len(c)]) for row, c in enumerate(continuations)]

    def _check(self, prompt: Ids, more: int) -> None:
        if not len(prompt):
            raise EpisodeError("prompt", "no token", "at least one token (a tokenizer with a begin token gives one)")
        limit = self.model.max_length
        if limit is not None and len(prompt) + more > limit:
            raise EpisodeError(
                "length", f"{len(prompt)} + {more} tokens", f"<= {limit}, where this model's positions end"
            )
