"""A model whose sequences are divided over ranks against the same model in one process."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from lcprobe.models.language_model import LanguageModel, LanguageModelState
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.training.compiling import compile_blocks, uncompiled
from lcprobe.training.config import TrainConfig
from lcprobe.training.initial_state import after
from lcprobe.training.optim import make_optimizer
from validation.invariances.checks import VOCAB
from validation.invariances.ours import built

SEQLEN = 48
STARTS = 0.06
"""Share of tokens that begin a document: some chunks have none, some several, and most documents cross borders."""


@dataclass(frozen=True)
class Apart:
    """How far apart the two are: of hidden vectors, loss and gradients of all parameters, each divided by the largest
    number of the whole one; and the bytes that the first rank sent."""

    hidden: float
    loss: float
    gradients: float
    sent: dict[str, int]

    @property
    def worst(self) -> float:
        """The largest of them."""
        return max(self.hidden, self.loss, self.gradients)


def batch(documents: bool, seqlen: int = SEQLEN, seed: int = 3) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tokens and weights of two rows, a fifth of the weights zero, and where documents start."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, VOCAB, (2, seqlen), generator=generator)
    weights = (torch.rand(2, seqlen, generator=generator) < 0.8).double()
    starts = torch.rand(2, seqlen, generator=generator) < STARTS
    return tokens, weights, starts if documents else None


def apart(
    ranks: ContextRanks,
    settings: Mapping[str, Any],
    documents: bool,
    dtype: torch.dtype = torch.float64,
    recompute: bool = False,
    seqlen: int = SEQLEN,
    initial: bool = False,
    backend: str | None = None,
) -> Apart | None:
    """Forward and backward, divided and whole; None in all ranks but the first. settings: a ModelConfig, as written
    in a config; initial: begin with a state that is not empty; backend: of torch.compile, of the divided one's
    blocks; None: they are not compiled."""
    model = built(settings, dtype)
    model.recompute = recompute
    state = some_state(model, 2) if initial else None
    tokens, weights, starts = batch(documents, seqlen)
    ranks.sent.clear()
    if backend is not None:
        compile_blocks(model, backend)
    hidden, loss, gradients = _pass(model, tokens, weights.to(dtype), starts, ranks, state)
    sent = dict(ranks.sent)
    chunks = [torch.empty_like(hidden) for _ in range(ranks.size)]
    distributed.all_gather(chunks, hidden, group=ranks.group)
    _sum(ranks, [loss, *gradients.values()])
    if ranks.rank:
        return None
    with uncompiled():
        whole, want_loss, want = _pass(model, tokens, weights.to(dtype), starts, None, state)
    scale = max(float(t.abs().max()) for t in want.values())
    each = [float((gradients[name] - t).abs().max()) for name, t in want.items()]
    return Apart(
        _ratio(float((torch.cat(chunks, dim=1) - whole).abs().max()), float(whole.abs().max())),
        _ratio(float((loss - want_loss).abs()), float(want_loss.abs())),
        max(_ratio(error, scale) for error in each),
        sent,
    )


def trained_apart(ranks: ContextRanks, settings: Mapping[str, Any], steps: int, dtype: torch.dtype) -> float:
    """Largest difference of a weight after so many steps of AdamW, divided and whole, by the largest weight; 0 in all
    ranks but the first."""
    divided = _trained(settings, steps, dtype, ranks)
    if ranks.rank:
        return 0.0
    whole = _trained(settings, steps, dtype, None)
    largest = max(float(p.abs().max()) for p in whole)
    return _ratio(max(float((a - b).abs().max()) for a, b in zip(divided, whole, strict=True)), largest)


def _trained(
    settings: Mapping[str, Any], steps: int, dtype: torch.dtype, ranks: ContextRanks | None
) -> list[torch.Tensor]:
    model, config = built(settings, dtype), TrainConfig(lr=1e-3)
    optimizer = make_optimizer(config, model)
    for group in optimizer.param_groups:
        group["lr"] = config.lr
    for step in range(steps):
        tokens, weights, starts = batch(step % 2 == 1, seed=step)
        model.zero_grad()
        torch.manual_seed(step)  # of drawn positions
        model.loss(tokens, weights.to(dtype), starts=starts, ranks=ranks)[0].backward()
        if ranks is not None:
            _sum(ranks, [p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def each_apart(
    ranks: ContextRanks,
    cases: list[tuple[str, Mapping[str, Any]]],
    dtype: torch.dtype,
    recompute: bool = False,
    packed: tuple[bool, ...] = (False, True),
    initial: bool = False,
    backend: str | None = None,
) -> list[tuple[str, bool, Apart]]:
    """`apart` of every case, by default without and with packed documents: (name, documents, Apart)."""
    found = []
    for name, settings in cases:
        for documents in packed:
            one = apart(ranks, settings, documents, dtype, recompute, initial=initial, backend=backend)
            if one is not None:
                found.append((name, documents, one))
    return found


def some_state(model: LanguageModel, rows: int) -> LanguageModelState:
    """The state after other tokens, as training begins with one: attention is empty."""
    tokens = torch.randint(2, VOCAB, (rows, 9), generator=torch.Generator().manual_seed(8))
    torch.manual_seed(6)
    with torch.no_grad():
        return after(model, tokens, None, None, model.new_state(rows))


def _pass(
    model: LanguageModel,
    tokens: Tensor,
    weights: Tensor,
    starts: Tensor | None,
    ranks: ContextRanks | None,
    state: LanguageModelState | None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Hidden vectors, loss, and the gradients by parameter."""
    model.zero_grad()
    torch.manual_seed(5)  # of drawn positions
    with torch.no_grad():
        hidden, _ = model.hidden(tokens, starts=starts, state=state, ranks=ranks)
    torch.manual_seed(5)
    loss, *_ = model.loss(tokens, weights, starts=starts, state=state, ranks=ranks)
    loss.backward()
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
    }
    return hidden, loss.detach(), gradients


def _sum(ranks: ContextRanks, tensors: list[Tensor]) -> None:
    """Each of the tensors summed over the ranks, in place and in one message."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    distributed.all_reduce(flat, group=ranks.group)
    for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def _ratio(error: float, scale: float) -> float:
    return error / scale if error == error and scale > 0 else (0.0 if error == 0 else float("inf"))
