"""transformers' classes under test, by the calls that they document.

Each is called in two ways. Usual: a cache and nothing else; positions that start again at each packed document, as
its collators make them; an attention mask for padding; `batch_repeat_interleave` and `batch_select_indices` of the
cache. Explicit: `position_ids` in every call, `cu_seq_lens` and `seq_idx` of packed documents too, and
`reorder_cache`.
"""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from validation.invariances.checks import Side

CACHES = ("past_key_values", "cache_params", "state")
"""The argument and the output that hold the cache, whichever a class has."""


class NotOffered(Exception):
    """A class has no call for what is asked of it."""


@dataclass(frozen=True)
class PeerState:
    """cache: as transformers returns it, None before the first token; position: (batch,) int64, of the next token;
    mask: (batch, n) int64 of the tokens so far, None without padding."""

    cache: Any
    position: Tensor
    mask: Tensor | None = None


class Peer:
    """A causal model of transformers as a Subject. explicit: see above."""

    def __init__(self, model: Any, explicit: bool):
        self.model, self.explicit = model, explicit
        self.accepts = set(inspect.signature(type(model).forward).parameters)
        self.cache_name = next(name for name in CACHES if name in self.accepts)

    def logits(self, tokens: Tensor) -> Tensor:
        """See Subject."""
        return self.model(tokens, use_cache=False).logits

    def packed(self, tokens: Tensor, starts: Tensor) -> Tensor:
        """See Subject; one row."""
        edges = [0, *starts[0].nonzero()[:, 0].tolist(), starts.shape[1]]
        lengths = torch.tensor(edges).diff()
        ids = torch.cat([torch.arange(n) for n in lengths.tolist()])[None]
        given: dict[str, Any] = {"position_ids": ids}
        if self.explicit:
            bounds = torch.tensor(edges, dtype=torch.int32)
            number = torch.arange(len(lengths), dtype=torch.int32).repeat_interleave(lengths)[None]
            given |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "seq_idx": number}
            given |= {"max_length_q": int(lengths.max()), "max_length_k": int(lengths.max())}
        return self.model(tokens, use_cache=False, **given).logits

    def new_state(self, batch: int) -> PeerState:
        """See Subject."""
        return PeerState(None, torch.zeros(batch, dtype=torch.int64))

    def advance(self, tokens: Tensor, state: PeerState, starts: Tensor | None = None) -> tuple[Tensor, PeerState]:
        """See Subject."""
        assert starts is None, "documents are packed without a cache"
        positions = state.position[:, None] + torch.arange(tokens.shape[1])
        mask = None if state.mask is None else torch.cat([state.mask, torch.ones_like(tokens)], 1)
        return self._read(tokens, positions, mask, state)

    def _read(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, before: PeerState) -> Any:
        """positions: (batch, n); mask: (batch, tokens so far and these)."""
        given: dict[str, Any] = {} if mask is None else {"attention_mask": mask}
        if before.cache is not None and self.cache_name != "past_key_values":
            given = {}  # as `generate` calls classes without attention
        if self.explicit and "position_ids" in self.accepts:
            given["position_ids"] = positions
        cache = before.cache
        if cache is None and not self._returns_cache:
            from transformers import DynamicCache

            cache = DynamicCache(config=self.model.config)
        if cache is not None:
            given[self.cache_name] = cache
        out = self.model(tokens, use_cache=True, **given)
        after = out[self.cache_name] if self._returns_cache else cache
        return out.logits, PeerState(after, positions[:, -1] + 1, mask)

    @property
    def _returns_cache(self) -> bool:
        """Whether the output has the cache: not that of RecurrentGemma, which is passed one and changes it."""
        return "RecurrentGemma" not in type(self.model).__name__

    def fork(self, state: PeerState, n: int) -> PeerState:
        """See Subject."""
        index = torch.arange(len(state.position)).repeat_interleave(n)
        return self._selected(state, index, "batch_repeat_interleave", n)

    def rows(self, state: PeerState, index: Tensor) -> PeerState:
        """See Subject."""
        return self._selected(state, index, "batch_select_indices", index)

    def _selected(self, state: PeerState, index: Tensor, method: str, argument: Any) -> PeerState:
        cache = copy.deepcopy(state.cache)
        if isinstance(cache, list):  # of tensors
            cache = [t.index_select(0, index) for t in cache]
        elif not callable(getattr(cache, "reorder_cache", None)):
            raise NotOffered
        elif self.explicit:
            cache.reorder_cache(index)
        else:
            getattr(cache, method)(argument)
        return replace(state, cache=cache, position=state.position[index])

    def padded(self, prompts: Sequence[Tensor], more: Tensor, side: Side) -> list[Tensor]:
        """See Subject."""
        sizes, longest = [len(prompt) for prompt in prompts], max(map(len, prompts))
        at = [0 if side == "right" else longest - n for n in sizes]
        tokens, mask = torch.zeros(2, len(prompts), longest, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, at[row] : at[row] + sizes[row]] = prompt
            mask[row, at[row] : at[row] + sizes[row]] = 1
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        logits, state = self._read(tokens, positions, mask, self.new_state(len(prompts)))
        state, parts = replace(state, position=torch.tensor(sizes)), []
        for t in range(more.shape[1]):
            part, state = self.advance(more[:, t : t + 1], state)
            parts.append(part)
        after = torch.cat(parts, 1)
        return [torch.cat([logits[row, lo : lo + sizes[row]], after[row]]) for row, lo in enumerate(at)]

    def parameters(self) -> list[Tensor]:
        """See Subject."""
        return [p for p in self.model.parameters() if p.requires_grad]
