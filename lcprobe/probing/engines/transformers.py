"""Causal language models of transformers as probed models: from a local folder, never with code of the folder's own.

The state is their cache and a position. Many classes continue wrongly from a cache, silently (chunks after a cache in
mamba and jamba, a state kept in the modules of recurrent_gemma), so every model is tested when it is loaded
(self_test.py); one that fails is read with a state of token ids instead, from the first token in every call, and
`note` says so. Hidden vectors are the inputs of the head, so that logits are made for chosen positions only.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcprobe.models.state import HoldsTensors
from lcprobe.probing.engines.contract import ProbedModel

CACHES = ("past_key_values", "cache_params", "state")
"""The argument and the output that hold the cache, whichever a class has."""
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "logit_softcap")
FACTORS = ("logit_scale", "lm_head_multiplier", "logits_scaling", "output_multiplier")
"""Settings by which classes change logits after the head: t * tanh(x / t), and x * f or x / f."""
VOCABULARY_PART = 16_384
"""Rows of a head in half precision that are widened to float32 at once."""
TABLE_OFFSETS = (0, 2)
"""Rows of a table of positions beyond `max_position_embeddings`: none, or two in OPT's line."""

Finish = Callable[[Tensor], Tensor]


class NoCache(Exception):
    """A class that has no cache, or whose cache cannot be copied by rows."""


@dataclass(frozen=True)
class CachedState(HoldsTensors):
    """The cache of a class after `position` tokens of every row; cache None: before the first one."""

    cache: Any
    position: int
    batch: int

    def rows(self, index: Tensor) -> "CachedState":
        """See ProbedState."""
        cache = None if self.cache is None else _selected(self.cache, index)
        return CachedState(cache, self.position, len(index))

    def tensors(self) -> list[Tensor]:
        """The tensors of the cache that have a row for every row of the batch."""
        return [t for t in _tensors(self.cache) if t.ndim and t.shape[0] == self.batch]


@dataclass(frozen=True)
class PrefixState:
    """The tokens so far, (batch, n) int64, which are read again in every call."""

    ids: Tensor

    def rows(self, index: Tensor) -> "PrefixState":
        """See ProbedState."""
        return PrefixState(self.ids[index.to(self.ids.device)])


class TransformersModel(ProbedModel):
    """A causal model of transformers.

    note: what a reader of its results must know, one line. tokens_read: tokens that have passed through it, again
    and again for a model that `rereads`.
    """

    def __init__(self, model: Any):
        self.model = model.eval().requires_grad_(False)
        self.note = ""
        self.tokens_read = 0
        self.finish: Finish | None = None
        """What the class does to logits after the head; None: hidden vectors are its logits themselves."""
        self._rereads = False
        self._accepts = set(inspect.signature(type(model).forward).parameters)
        self.cache_name = next((name for name in CACHES if name in self._accepts), None)
        self._head: nn.Module | None = model.get_output_embeddings()

    @property
    def rereads(self) -> bool:
        """See ProbedModel: decided by the test at loading."""
        return self._rereads

    def reread(self) -> None:
        """From now on, read every sequence from its first token in every call."""
        self._rereads = True

    def keep_cache(self) -> None:
        """From now on, continue from the class's cache, whatever the test at loading found."""
        self._rereads = False

    @property
    def settings(self) -> dict[str, Any]:
        """The config of the text model, by the names that all classes share where one has its own."""
        config = self.model.config.get_text_config()
        own = config.to_dict()
        return own | {name: own[mapped] for name, mapped in config.attribute_map.items() if mapped in own}

    @property
    def device(self) -> torch.device:
        """Where token ids go, and hidden vectors and logits come back."""
        return self.model.get_input_embeddings().weight.device

    @property
    def vocab_size(self) -> int:
        """Token ids that the embedding has rows for."""
        return self.model.get_input_embeddings().weight.shape[0]

    @property
    def max_length(self) -> int | None:
        """The end of a table of learned positions; None for other encodings, which go on."""
        end = self.settings.get("max_position_embeddings")
        words = self.model.get_input_embeddings()
        if end is None:
            return None
        tables = [m.num_embeddings for m in self.model.modules() if isinstance(m, nn.Embedding) and m is not words]
        return end if any(n == end + offset for n in tables for offset in TABLE_OFFSETS) else None

    def new_state(self, batch: int, length: int | None = None) -> CachedState | PrefixState:
        """See ProbedModel."""
        if self._rereads:
            return PrefixState(torch.empty(batch, 0, dtype=torch.int64, device=self.device))
        return CachedState(None, 0, batch)

    def hidden(self, tokens: Tensor, *, state: Any) -> tuple[Tensor, Any]:
        """See ProbedModel; logits (batch, seqlen, vocab_size) where the class has no head of its own to be found."""
        tokens = tokens.to(self.device)
        if isinstance(state, PrefixState):
            ids = torch.cat([state.ids, tokens], dim=1)
            hidden, _ = self.read(ids, None, 0, use_cache=False)
            return hidden[:, state.ids.shape[1] :], PrefixState(ids)
        cache = copy.deepcopy(state.cache)  # the class writes into what it is given
        hidden, cache = self.read(tokens, cache, state.position, use_cache=True)
        return hidden, CachedState(cache, state.position + tokens.shape[1], state.batch)

    def read(self, tokens: Tensor, cache: Any, position: int, use_cache: bool) -> tuple[Tensor, Any]:
        """One call of the class. Returns hidden vectors and its cache, None without `use_cache`. Raises NoCache."""
        self.tokens_read += tokens.numel()
        given: dict[str, Any] = {"use_cache": use_cache} if "use_cache" in self._accepts else {}
        if "position_ids" in self._accepts:
            ids = torch.arange(position, position + tokens.shape[1], device=tokens.device)
            given["position_ids"] = ids[None].expand(tokens.shape[0], -1)
        if use_cache and self.cache_name is None:
            raise NoCache("it takes no cache")
        if cache is not None and self.cache_name is not None:
            given[self.cache_name] = cache
        seen: list[Tensor] = []
        if self._head is not None and self.finish is not None:
            hook = self._head.register_forward_pre_hook(lambda _, args: _keep(args, seen))
            try:
                out = self.model(tokens, **given)
            finally:
                hook.remove()
            hidden = seen[-1]
        else:
            out = self.model(tokens, **given)
            hidden = out.logits.float()
        after = out.get(self.cache_name) if use_cache else None
        if use_cache and after is None:
            raise NoCache("it returns no cache: its state is in its modules")
        return hidden.to(self.device), after

    def logits(self, hidden: Tensor) -> Tensor:
        """See ProbedModel; float32 products, whatever the dtype of the weights."""
        if self.finish is None or not isinstance(self._head, nn.Linear):
            return hidden
        weight, bias = self._head.weight, self._head.bias
        x = hidden.to(weight.device, torch.float32)
        parts = [F.linear(x, part.float()) for part in weight.split(VOCABULARY_PART)]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        out = out if bias is None else out + bias.to(torch.float32)
        return self.finish(out).to(self.device)

    def find_head(self, tokens: Tensor, tolerance: float) -> bool:
        """Set `finish` to the change after the head with which our logits equal the class's own within `tolerance` of
        the largest. False: none does, and hidden vectors stay the logits themselves. tokens: (batch, seqlen)."""
        self.finish = None
        theirs, _ = self.read(tokens, None, 0, use_cache=False)
        if not isinstance(self._head, nn.Linear):
            return False
        for finish in _finishes(self.settings):
            self.finish = finish
            try:
                ours = self.logits(self.read(tokens, None, 0, use_cache=False)[0])
            except IndexError:  # the class does not call its head
                break
            if ours.shape == theirs.shape and (ours - theirs).abs().max() <= tolerance * theirs.abs().max():
                return True
        self.finish = None
        return False


def _keep(args: tuple[Tensor, ...], seen: list[Tensor]) -> tuple[Tensor, ...]:
    """Keep the head's input and pass on its last position alone, so that the class makes no other logits."""
    seen.append(args[0])
    return (args[0][:, -1:], *args[1:])


def _finishes(settings: dict[str, Any]) -> list[Finish]:
    """What classes do to logits after the head, by the numbers in a config; nothing first."""
    given = {name: settings.get(name) for name in (*CAPS, *FACTORS)}
    known = {name: float(n) for name, n in given.items() if isinstance(n, int | float) and n}
    factors = [1.0, *(f for name in FACTORS if name in known for f in (known[name], 1 / known[name]))]
    caps = [None, *(known[name] for name in CAPS if name in known)]
    return [_finish(factor, cap) for cap in caps for factor in factors]


def _finish(factor: float, cap: float | None) -> Finish:
    def finish(logits: Tensor) -> Tensor:
        logits = logits if factor == 1 else logits * factor
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return finish


def _selected(cache: Any, index: Tensor) -> Any:
    """The rows of a cache at `index`, in a cache of their own. Raises NoCache for one that offers no such call."""
    if isinstance(cache, list | tuple):
        return _rows_of(cache, index)
    from transformers import Cache

    if not isinstance(cache, Cache) or "layers" not in vars(cache):
        raise NoCache(f"its {type(cache).__name__} has no rows to pick")
    own = _rebindable(cache)
    own.layers = [_rebindable(layer) for layer in cache.layers]
    own.reorder_cache(index)
    for name, value in vars(own).items():  # states beside the layers, as MiniMax's
        if isinstance(value, list) and name != "layers":
            setattr(own, name, _rows_of(value, index))
    return own


def _rows_of(values: Sequence[Any], index: Tensor) -> list[Any]:
    """Rows of the tensors in a list; what is no tensor stays."""
    return [v.index_select(0, index.to(v.device)) if isinstance(v, Tensor) and v.ndim else v for v in values]


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in a cache, its layers, and their lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for part in value.values() for t in _tensors(part)]
    if isinstance(value, list | tuple):
        return [t for part in value for t in _tensors(part)]
    if type(value).__module__.startswith("transformers."):  # a cache, or a layer of one
        return [t for part in vars(value).values() for t in _tensors(part)]
    return []


def _rebindable(part: Any) -> Any:
    """A cache, or a layer of one, in which names can be bound to selected tensors; until then tensors are shared."""
    own = copy.copy(part)
    for name, value in vars(own).items():
        if isinstance(value, dict | list):
            setattr(own, name, copy.copy(value))
    return own
