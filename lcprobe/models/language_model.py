"""LanguageModel: embedding -> blocks -> norm -> head, over any mixers, with one state for the whole stack.

By default the architecture follows the published Mamba2 family (state-spaces/mamba, models/mixer_seq_simple.py):
pre-norm RMSNorm, float32 residual stream, a separate norm before each MLP, tied head, output projections scaled by
1 / sqrt(n_layers) at initialisation.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from lcprobe_kernels.linear_cross_entropy import linear_cross_entropy
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import ConfigError, inside, require
from lcprobe.models.block import Block, BlockState, recomputed
from lcprobe.models.config import ModelConfig
from lcprobe.models.context_parallel.passing import settled
from lcprobe.models.mixers.contract import Mixer
from lcprobe.models.norms.contract import Norm
from lcprobe.models.parameters import Parametrised, owners
from lcprobe.models.parts import padded_vocab, parts_of, resolved_sizes
from lcprobe.models.positional.contract import HeadShape, PositionalEncoding, inside_layer
from lcprobe.models.positional.positions import DrawnPositions
from lcprobe.models.positional.schedule import EncodingPattern
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.state import State, StateSums, sums_of
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import plain
from lcprobe.seeds import seed_of


@dataclass(frozen=True)
class LanguageModelState(State):
    """layers: the state of each mixer; mlps: that of each block's MLP, None where it has none; position: number of
    tokens so far, the same for every row; length: declared length of the whole sequence, for encodings that depend on
    it; doc_start: (batch,) index of the first token of each row's document, None: 0."""

    layers: tuple[State, ...]
    mlps: tuple[State | None, ...]
    position: int
    length: int | None = None
    doc_start: Tensor | None = None


def _flat(states: Sequence[BlockState]) -> tuple[tuple[State, ...], tuple[State | None, ...]]:
    """The states of all mixers, and of all MLPs."""
    return tuple(state for mixers, _ in states for state in mixers), tuple(mlp for _, mlp in states)


class Selection(Protocol):
    """How a prompt is replaced by shorter ones, of which one is answered."""

    def pieces(self, prompt: np.ndarray, room: int) -> list[np.ndarray]:
        """prompt: (n,) ids; room: number of tokens that follow it -> one or more prompts, of which one is
        answered."""
        ...


class LanguageModel(Parametrised):
    """A causal language model.

    `config` must have its sizes (d_model, and d_ff where a block has an MLP) and vocab_size; matching sets them.
    Raises ConfigError for sizes that are missing or do not fit together, including those of position tables.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        parts = parts_of(config)
        d_model, d_ff, vocab_size = resolved_sizes(config)
        self.config, self.vocab_size = config, vocab_size
        self.embedding = nn.Embedding(padded_vocab(config), d_model)
        self.positional: PositionalEncoding | None = None
        if parts.added is not None:
            with inside_layer("model"):
                self.positional = parts.added.create(HeadShape(1, 1, 1, d_model, config.context_length))
        self.positions: DrawnPositions | None = None if config.positions is None else config.positions.create()
        self.selection: Selection | None = None
        """How prompts are split, where an extension sets it."""
        self.rereads = False
        """Its state is what it read: nothing is read again."""
        self.recompute = False
        """Whether a backward pass computes each block again from its input, instead of keeping its activations."""
        self.embedding_factor = config.embedding_factor()
        self.embedding_norm: Norm | None = None
        if config.embedding_norm:
            self.embedding_norm = config.norm.create(d_model, config.norm_eps)
        self.blocks = nn.ModuleList(Block(config, layers, d_model, d_ff) for layers in parts.blocks)
        for i, block in enumerate(self.blocks):
            for module in block.modules():
                if isinstance(module, Parametrised):
                    module.depth = (i, len(self.blocks))
        self._check_positions()
        self.norm: Norm = config.norm.create(d_model, config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(d_model, padded_vocab(config), bias=False)

    def _check_positions(self) -> None:
        """Raises ConfigError where the training length, or drawn positions, exceed a table of positions."""
        length, table = self.config.context_length, self._table_end
        drawn = None if self.positions is None else self.positions.config.max_length
        if length is not None and table is not None:
            require("model.positional.max_length", table, table >= length, f">= the training length {length}")
        if length is not None and drawn is not None:
            require("model.positions.max_length", drawn, drawn >= length, f">= the training length {length}")
        if table is not None and drawn is not None:
            require(
                "model.positions.max_length", drawn, drawn <= table, f"<= {table}, where the table of positions ends"
            )

    def hidden(
        self,
        tokens: Tensor,
        *,
        starts: Tensor | None = None,
        starts_on_host: Tensor | None = None,
        state: LanguageModelState | None = None,
        length: int | None = None,
        ranks: ContextRanks | None = None,
    ) -> tuple[Tensor, LanguageModelState | None]:
        """Hidden states after the final norm, (batch, seqlen, d_model), and the next state if one was passed in.

        tokens: (batch, seqlen) int64. starts: (batch, seqlen) bool, True where a packed document starts;
        starts_on_host: the same on the CPU, without which kernels may wait for a GPU. length: length of the whole
        sequence, for encodings that depend on it; a state carries it. Where the config asks for drawn positions, they
        are drawn; at evaluation they are a function of the declared length, which defaults to that of `tokens`
        without a state. ranks: those that each sequence is divided over, of which this process returns its own chunk
        of (batch, seqlen / size, d_model); tokens and starts are whole, a state is that before the first token, and
        there is no next one. Raises ConfigError for a sequence longer than the model's table of positions, where a
        length is needed but not declared, and for one that the ranks do not divide.
        """
        return self._forward(tokens, starts, state, length, None, ranks, starts_on_host=starts_on_host)

    def hidden_of_part(
        self, tokens: Tensor, *, starts: Tensor | None = None, starts_on_host: Tensor | None = None,
        state: LanguageModelState, ranks: ContextRanks,
    ) -> tuple[Tensor, LanguageModelState]:  # fmt: skip
        """`hidden` of a pass of at least one token a rank, divided over ranks: of this rank's part, as
        `ContextRanks.shares` has it, and the state after the whole pass, from which any rank goes on. Every rank
        computes its part alone and gets of the others what layers need: states are passed on, keys and values that
        are divided stay where they are.

        tokens: (batch, seqlen) int64, the same in all ranks; starts, starts_on_host: of all tokens; state: from
        `new_state`, with the layers of `Mixer.divided_state` for what they are to divide. Not for gradients.
        """
        hidden, after = self._forward(tokens, starts, state, None, None, ranks, True, starts_on_host)
        assert after is not None
        return hidden, after

    def hidden_states(
        self,
        tokens: Tensor,
        *,
        starts: Tensor | None = None,
        state: LanguageModelState | None = None,
        length: int | None = None,
    ) -> tuple[list[Tensor], LanguageModelState | None]:
        """The residual stream at every depth: n_blocks + 1 tensors (batch, seqlen, d_model), and the next state if
        one was passed in.

        The first is the embedding, the i-th what block i - 1 leaves in the stream, float32 where `residual_in_fp32`
        is set. `model.norm` of the last is `hidden`. Arguments and errors are those of `hidden`.
        """
        stream: list[Tensor] = []
        _, next_state = self._forward(tokens, starts, state, length, stream)
        return stream, next_state

    def _forward(
        self,
        tokens: Tensor,
        starts: Tensor | None,
        state: LanguageModelState | None,
        length: int | None,
        stream: list[Tensor] | None,
        ranks: ContextRanks | None = None,
        passes: bool = False,
        starts_on_host: Tensor | None = None,
    ) -> tuple[Tensor, LanguageModelState | None]:
        """See `hidden`. stream: a list that collects the residual stream at every depth; None: it is not kept.
        passes: whether ranks divide the tokens as `hidden_of_part` does."""
        seqlen, first = tokens.shape[1], 0 if state is None else state.position
        length, doc_start = (length, None) if state is None else (state.length, state.doc_start)
        for end, n in ((self._table_end, first + seqlen), (self.max_length, length or first + seqlen)):
            if end is not None and n > end:
                raise ConfigError("length", n, f"<= {end}, where the model's positions end")
        drawn = self._drawn(first, seqlen, seqlen if state is None and length is None else length)
        end = position = first + seqlen
        if ranks is not None and not passes:
            first, end = ranks.span(seqlen)
            doc_start, tokens = ranks.document_before(starts, first), tokens[:, first:end]
            starts = None if starts is None else starts[:, first:end]
        where = TokenContext.of_row(first, end, drawn, starts, length, doc_start, tokens.device)
        where = replace(where, ranks=None if passes else ranks).known_on_host(starts_on_host, end)
        if ranks is not None and passes:
            lo, hi = ranks.shares(seqlen)[ranks.rank]
            where, tokens = where.part(lo, hi, ranks), tokens[:, lo:hi]
        x = self.embedding(tokens)
        x = x if self.embedding_factor == 1 else x * self.embedding_factor
        x = x if self.embedding_norm is None else self.embedding_norm(x)
        x = x if self.positional is None else self.positional.on_embedding(x, where)
        compute, device = x.dtype, x.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            compute = torch.get_autocast_dtype(device)
        if self.config.residual_in_fp32:
            x = x.to(torch.promote_types(x.dtype, torch.float32))
        states: list[BlockState] = []
        residual, carries = None, {}
        by_block = [] if state is None else self._by_block(state.layers)
        if stream is not None:
            stream.append(x)
        for i, block in enumerate(self.blocks):
            before = None if state is None else (by_block[i], state.mlps[i])
            if self.recompute and torch.is_grad_enabled():
                args = (x, residual, where, before, compute, carries)
                (x, residual, after, carries), where = recomputed(block, *args)
            else:
                x, residual, after, carries = block(x, residual, where, before, compute, carries)
            if after is not None:
                states.append(after)
            if stream is not None:
                stream.append(residual + x)
        x = self.norm.added(x, residual)[0].to(compute)
        if state is None or (ranks is not None and not passes):
            return x, None
        layers, mlps = _flat(states)
        if ranks is not None:
            found = settled(ranks, [*layers, *mlps])
            layers, mlps = tuple(s for s in found[: len(layers)] if s is not None), tuple(found[len(layers) :])
        doc_starts = (where.whole or where).doc_starts
        last_start = None if doc_starts is None else doc_starts[:, -1]
        return x, LanguageModelState(layers, mlps, position, length, last_start)

    def _drawn(self, first: int, seqlen: int, length: int | None) -> Tensor | None:
        """Drawn positions of all tokens so far, (first + seqlen,); None: positions are counted. length: of the whole
        sequence."""
        if self.positions is None:
            return None
        if self.training and first == 0:
            return self.positions.draw(seqlen)
        if not self.positions.at_test:
            return None
        if length is None:
            raise ConfigError("length", None, "one that is declared with the state: positions are drawn for it")
        return self.positions.of_length(length, first + seqlen)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: (..., d_model) -> logits (..., vocab_size), float32 or wider; meant for selected positions only."""
        out = F.linear(hidden, self.head_weight)[..., : self.vocab_size]
        out, cap = out.to(torch.promote_types(out.dtype, torch.float32)), self.config.logit_soft_cap
        return out if cap is None else cap * torch.tanh(out / cap)

    def loss(
        self,
        tokens: Tensor,
        weights: Tensor,
        *,
        starts: Tensor | None = None,
        starts_on_host: Tensor | None = None,
        state: LanguageModelState | None = None,
        predicted: Tensor | None = None,
        total_weight: Tensor | None = None,
        ranks: ContextRanks | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Next-token loss. tokens, weights: (batch, seqlen); weights[:, t] is the weight of predicting token t.
        starts, starts_on_host: see `hidden`. state: the initial state, where it is not empty. predicted: (n,) the
        predictions with non-zero weight, see below, from who knows them; None: they are counted, which waits for a
        GPU. total_weight: (scalar) what the weighted sum is divided by, of a batch of which these are some rows;
        None: their own weights. ranks: see `hidden`; each rank predicts what follows the tokens of its chunk
        (`predicted` too), and its loss is its share of the whole.

        Returns the weighted mean (scalar), the losses (n,) of the n predictions with non-zero weight, detached, and
        their indices (n,) in the flattened (batch, seqlen - 1) predictions. Logits are computed for these predictions
        only. The first token of a row is never predicted.
        """
        x, _ = self.hidden(tokens, starts=starts, starts_on_host=starts_on_host, state=state, ranks=ranks)
        seqlen, chunk, first = tokens.shape[1], x.shape[1], 0
        all_weights = weights[:, 1:].reshape(-1)
        index = all_weights.nonzero()[:, 0] if predicted is None else predicted
        if ranks is not None:
            first, end = ranks.span(seqlen)
            if predicted is None:
                at = index % (seqlen - 1)
                index = index[(at >= first) & (at < end)]
            total_weight = all_weights.sum() if total_weight is None else total_weight
        row, at = index // (seqlen - 1), index % (seqlen - 1)
        x = x.reshape(-1, x.shape[-1]).index_select(0, row * chunk + at - first)
        w, targets = all_weights.index_select(0, index), tokens[:, 1:].reshape(-1).index_select(0, index)
        total, rows = linear_cross_entropy(x, self.head_weight, targets, w, soft_cap=self.config.logit_soft_cap)
        return (
            total / (w.sum() if total_weight is None else total_weight.to(total.dtype)).clamp_min(1e-9),
            rows,
            index,
        )

    @property
    def head_weight(self) -> Tensor:
        """Weights of the head: (padded vocab, d_model)."""
        return self.embedding.weight if self.head is None else self.head.weight

    def new_state(self, batch: int, length: int | None = None) -> LanguageModelState:
        """The state before the first token, for `batch` rows. length: declared length of the whole sequence, see
        `hidden`."""
        return LanguageModelState(*_flat([block.new_state(batch) for block in self._blocks()]), 0, length)

    def prompt_ended(self, state: LanguageModelState) -> LanguageModelState:
        """The state from which an answer is decoded, given that after its prompt: the same one."""
        return state

    def state_sums(self, state: LanguageModelState, rows: int) -> StateSums:
        """How large the numbers of a state of so many rows are, row by row."""
        return sums_of(state.tensors(), rows)

    @property
    def max_length(self) -> int | None:
        """Maximum sequence length: the end of a table of positions, or of drawn positions at evaluation; None: no
        limit."""
        drawn = None if self.positions is None or not self.positions.at_test else self.positions.config.max_length
        return min((end for end in (self._table_end, drawn) if end is not None), default=None)

    @property
    def needs_length(self) -> bool:
        """Whether the length of sequences must be declared in advance, because outputs depend on it."""
        return any(e.needs_length for e in self._encodings()) or (
            self.positions is not None and self.positions.at_test
        )

    @property
    def _table_end(self) -> int | None:
        return min((e.max_length for e in self._encodings() if e.max_length is not None), default=None)

    def _encodings(self) -> list[PositionalEncoding]:
        carried = [self.positional, *(mixer.encoding for mixer in self.mixers())]
        return [e for e in carried if e is not None]

    def mixers(self) -> list[Mixer]:
        """The mixers of the blocks, in order."""
        return [mixer for block in self._blocks() for mixer in block.mixers()]

    def check_context_parallel(self, key: str, ranks: int) -> None:
        """Raises ConfigError for a mixer whose sequences cannot be divided over ranks. key: the setting of them."""
        for mixer in self.mixers():
            if not mixer.divides_context:
                raise ConfigError(key, ranks, f"1 with {type(mixer).__name__}, whose state has no shape at the start")

    def _by_block(self, layers: tuple[State, ...]) -> list[tuple[State, ...]]:
        """The states of the mixers, by block."""
        left = iter(layers)
        return [tuple(next(left) for _ in block.mixers()) for block in self._blocks()]

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def set_positional(self, pattern: EncodingPattern, key: str = "model") -> None:
        """Replace the encodings of the attention layers, in place. pattern: as `model.positional`; key: config
        section for errors.

        Raises ConfigError where parameters would be added or removed, and for an absolute encoding before or after.
        """
        config = replace(self.config, positional=pattern)
        parts = parts_of(config, key)
        if self.positional is not None or parts.added is not None:
            raise ConfigError(f"{key}.positional", plain(pattern), "encodings of attention layers, before and after")
        for mixer, layer in zip(self.mixers(), parts.layers, strict=True):
            with inside(key):
                mixer.reconfigure_encoding(layer.config)
        self.config = config

    @torch.no_grad()
    def initialise(self, seed: int) -> "LanguageModel":
        """Set every parameter to its initial value."""
        parameters = dict(self.named_parameters())
        for name, value in self.initial_values(seed, {name: p.shape for name, p in parameters.items()}):
            parameters[name].copy_(value)
        return self

    @torch.no_grad()
    def initial_values(self, seed: int, shapes: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, Tensor]]:
        """(name, initial value in float64) of every parameter, a function of (seed, name): independent of
        construction order, sharding and device. shapes: of whole parameters, of which this process may have parts."""
        residual_scale = 1 / math.sqrt(len(self.blocks))
        for name, owner, own_name in owners(self):
            generator = torch.Generator().manual_seed(seed_of("init", seed, name))
            value = torch.empty(tuple(shapes[name]), dtype=torch.float64)
            owner.init_parameter(own_name, value, generator)
            if own_name in owner.residual_outputs:
                value.mul_(residual_scale)
            yield name, value

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: the embedding is normal with standard deviation `initializer_range`."""
        if name == "embedding.weight":
            value.normal_(0, self.config.initializer_range, generator=generator)
        else:
            super().init_parameter(name, value, generator)
