"""Causal multi-head attention with grouped keys and values, any positional encoding, optional short convolution and
window.

    y_i = sum_j softmax_j(q_i . k_j / sqrt(head_dim)) v_j,   j <= i

Vaswani et al. 2017 (arXiv 1706.03762); grouped-query: Ainslie et al. 2023 (arXiv 2305.13245). The convolution over
the joint q, k, v (with bias, without activation) is that of state-spaces/mamba, modules/mha.py. Unlike there, the
state keeps the convolution's inputs, so that decoding equals the full forward pass.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Self

import torch
from lcprobe_kernels.causal_conv1d import causal_conv1d
from lcprobe_kernels.rms_norm import rms_norm
from torch import Tensor, nn

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, inside, require
from lcprobe.models.context_parallel.divided import divided_keys, merged, next_part, of_part, whole_pass
from lcprobe.models.context_parallel.keys import alive as alive_of_earlier
from lcprobe.models.context_parallel.keys import terms_over, with_earlier_ranks
from lcprobe.models.context_parallel.passing import after_part, before_part
from lcprobe.models.context_parallel.recurrences import inputs_before
from lcprobe.models.cost import Cost
from lcprobe.models.kv_cache import AttentionState, Divided, KVCache, state_after
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.parameters import init_convolution
from lcprobe.models.positional import POSITIONAL, TEMPERATURES
from lcprobe.models.positional.contract import HeadShape, Keys, PositionalEncoding, inside_layer
from lcprobe.models.positional.temperature import Temperature
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.tensor_parallel.attention import attention_splits
from lcprobe.models.tensor_parallel.split import Share, Split
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class AttentionConfig(MixerConfig):
    """Heads, window and encoding of attention."""

    n_heads: int | None = None
    """Number of query heads; null: d_model / head_dim."""
    n_kv_heads: int | None = None
    """Number of key and value heads, a divisor of n_heads; null: n_heads."""
    head_dim: int = 64
    """Width of a head; n_heads x head_dim may differ from d_model."""
    d_conv: int = 0
    """Width of a causal convolution over q, k, v, tokens; 0: no convolution."""
    window: int | None = None
    """Sliding window: a token sees itself and the window - 1 tokens before it; null: all tokens before it."""
    window_counts_self: bool = True
    """Whether the window counts the token itself; false: it sees itself and `window` tokens before it, W + 1 keys, as
    in the code that RecurrentGemma was trained with (transformers shows W)."""
    sinks: int = 0
    """Number of first tokens of a row that stay visible in addition to a window; all keys are then cached."""
    qk_norm: bool = False
    """RMSNorm of each head's queries and keys before they are rotated, with one weight for all heads (Qwen3,
    arXiv 2505.09388)."""
    qk_norm_zero_centred: bool = False
    """Store the weight of these norms minus 1 (Qwen3-Next)."""
    norm_eps: float = 1e-6
    """Epsilon of the norms of queries and keys, added to the mean square."""
    output_gate: bool = False
    """Multiply the heads' outputs by the sigmoid of a projection of the input, before the output projection
    (Qwen3-Next; arXiv 2505.06708)."""
    sink_logit: bool = False
    """Add a learned logit per head to the softmax, without a value (gpt-oss, arXiv 2508.10925)."""
    soft_cap: float | None = None
    """Bound scores q . k softly: c tanh(q . k / c), before biases are added (Gemma 2, arXiv 2408.00118: 50); null: no
    bound."""
    bias: bool = False
    """Use biases in the projections."""
    output_bias: bool | None = None
    """Use a bias in the output projection (RecurrentGemma has it there alone); null: as `bias`."""
    positional: Annotated[Choice, POSITIONAL] = field(
        default_factory=lambda: POSITIONAL.convert({"type": "rope"}, "positional")
    )
    """Positional encoding: `{type: rope, base: 10000}`, `{type: none}`; model.positional overrides it in all
    layers."""
    temperature: Annotated[Choice | None, TEMPERATURES] = None
    """Factor on q . k as a function of the number of visible keys: `{type: logn}`, `{type: ssmax}`; null: 1."""
    context_length: int | None = None
    """Training length, for encodings that depend on it; null: model.context_length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes out of range, heads that do not divide, and encodings that do not fit the
        other settings."""
        require(f"{at}.head_dim", self.head_dim, self.head_dim >= 1, ">= 1")
        require(f"{at}.d_conv", self.d_conv, self.d_conv == 0 or self.d_conv >= 2, "0 or >= 2")
        require(f"{at}.window", self.window, self.window is None or self.window >= 1, ">= 1 or null")
        centred = self.qk_norm_zero_centred
        require(f"{at}.qk_norm_zero_centred", centred, self.qk_norm or not centred, "false without qk_norm")
        counts = self.window_counts_self
        require(f"{at}.window_counts_self", counts, counts or self.window is not None, "true where window is null")
        require(f"{at}.norm_eps", self.norm_eps, self.norm_eps > 0, "> 0")
        require(f"{at}.sinks", self.sinks, self.sinks >= 0, ">= 0")
        require(f"{at}.n_heads", self.n_heads, self.n_heads is None or self.n_heads >= 1, ">= 1 or null")
        kv, cap = self.n_kv_heads, self.soft_cap
        require(f"{at}.n_kv_heads", kv, kv is None or kv >= 1, ">= 1 or null")
        require(f"{at}.soft_cap", cap, cap is None or cap > 0, "> 0 or null")
        if kv is not None and self.n_heads is not None:
            require(f"{at}.n_kv_heads", kv, self.n_heads % kv == 0, f"a divisor of n_heads ({self.n_heads})")
        encoding, temperature = self.positional, self.temperature
        encoding.resolve()
        if temperature is not None:
            temperature.resolve()
            if not encoding.cls.linear:
                allowed = f"null with {encoding.name}, whose weights are not a softmax of q . k plus a bias"
                raise ConfigError(f"{at}.temperature", temperature.name, allowed)
        if cap is not None and (not encoding.cls.linear or encoding.cls.family == "path"):
            raise ConfigError(f"{at}.soft_cap", cap, f"null with {encoding.name}: its scores are no q . k")
        if encoding.cls.family == "absolute":
            raise ConfigError(
                f"{at}.positional.type", encoding.name, "one for a layer (absolute ones: model.positional)"
            )
        if self.sink_logit and not encoding.cls.softmax:
            raise ConfigError(
                f"{at}.sink_logit", True, f"false with {encoding.name}, whose weights are not a softmax"
            )
        with inside_layer(at), torch.device("meta"):
            heads = self.n_heads or max(1, kv or 1)
            length = self.context_length or 512
            encoding.create(HeadShape(heads, kv or heads, self.head_dim, heads * self.head_dim, length))

    def with_context_length(self, context_length: int | None) -> Self:
        """See MixerConfig; encodings and temperatures may depend on it."""
        return replace(self, context_length=context_length) if self.context_length is None else self

    def with_encoding(self, changes: Mapping[str, object]) -> Self:
        """See MixerConfig. changes: fields of this config."""
        return replace(self, **changes)

    @property
    def has_output_bias(self) -> bool:
        """Whether the output projection has a bias."""
        return self.bias if self.output_bias is None else self.output_bias

    @property
    def visible_keys(self) -> int | None:
        """Number of keys that a query sees by the window, its own included; None: all earlier ones."""
        return self.window if self.window is None or self.window_counts_self else self.window + 1

    def heads(self, d_model: int) -> tuple[int, int]:
        """(n_heads, n_kv_heads) at this width. Raises ConfigError where heads do not divide."""
        n_heads = self.n_heads
        if n_heads is None:
            if d_model % self.head_dim:
                raise ConfigError("head_dim", self.head_dim, f"a divisor of d_model ({d_model}), or set n_heads")
            n_heads = d_model // self.head_dim
        n_kv_heads = n_heads if self.n_kv_heads is None else self.n_kv_heads
        if n_heads % n_kv_heads:
            raise ConfigError("n_kv_heads", n_kv_heads, f"a divisor of n_heads ({n_heads})")
        return n_heads, n_kv_heads

    def shape(self, d_model: int) -> HeadShape:
        """The shape that encodings are built for."""
        return HeadShape(*self.heads(d_model), self.head_dim, d_model, self.context_length)


class Attention(Mixer[AttentionConfig, AttentionState]):
    """Softmax attention: softmax(q k^T / sqrt(head_dim)) v over the visible tokens, which it caches."""

    Config = AttentionConfig
    state_type = AttentionState
    carries_encoding = True
    divides_passes = True

    def __init__(self, config: AttentionConfig, d_model: int):
        super().__init__(config, d_model)
        self.n_heads, self.n_kv_heads = config.heads(d_model)
        self.head_dim, self.window, self.sinks = config.head_dim, config.visible_keys, config.sinks
        self.d_conv, self.soft_cap = config.d_conv, config.soft_cap
        self.width = (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
        self.gate_width = self.n_heads * self.head_dim if config.output_gate else 0
        self.in_proj = nn.Linear(d_model, self.width + self.gate_width, bias=config.bias)  # q, k, v, gate
        if config.d_conv:
            self.conv_weight = nn.Parameter(torch.empty(self.width, config.d_conv))
            self.conv_bias = nn.Parameter(torch.empty(self.width))
        self.out_proj = nn.Linear(self.n_heads * self.head_dim, d_model, bias=config.has_output_bias)
        self.d_model, self.has_sink_logit = d_model, config.sink_logit
        self.positional, self.temperature = _encoders(config, d_model)
        self.qk_norm, self.norm_eps = config.qk_norm, config.norm_eps
        self.zero_centred = config.qk_norm_zero_centred
        if config.qk_norm:
            self.q_norm_weight = nn.Parameter(torch.empty(self.head_dim))
            self.k_norm_weight = nn.Parameter(torch.empty(self.head_dim))
        if config.sink_logit:
            self.sink_logit = nn.Parameter(torch.empty(self.n_heads))
        self.no_decay = ("sink_logit", "conv_weight")

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised; encoding and temperature initialise their own parameters."""
        if name == "sink_logit":
            value.zero_()
        elif name in ("conv_weight", "conv_bias"):
            init_convolution(value, self.d_conv, generator)
        elif name in ("q_norm_weight", "k_norm_weight"):
            value.fill_(0.0 if self.zero_centred else 1.0)
        else:
            super().init_parameter(name, value, generator)

    @property
    def encoding(self) -> PositionalEncoding:
        """See Mixer."""
        return self.positional

    def set_encoding(self, encoding: PositionalEncoding) -> None:
        """See Mixer."""
        self.positional = encoding

    def reconfigure_encoding(self, config: AttentionConfig) -> None:
        """See Mixer."""
        positional, temperature = _encoders(config, self.d_model)
        modules = (self.positional, self.temperature, positional, temperature)
        learned = next(
            (type(m).__name__ for m in modules if m is not None and any(True for _ in m.parameters())), None
        )
        if learned is not None or config.sink_logit != self.has_sink_logit:
            raise ConfigError(
                "positional", learned or "sink_logit", "encodings without learned parameters, before and after"
            )
        self.positional, self.temperature = positional, temperature
        self.window, self.sinks = config.visible_keys, config.sinks

    def tensor_splits(self, n: int) -> Mapping[str, Split]:
        """See Mixer: by heads, where all are encoded alike."""
        if not self.positional.same_for_heads or self.temperature is not None:
            return {}
        names = {name for name, _ in self.named_parameters()}
        return attention_splits(names, self.n_heads, self.n_kv_heads, self.head_dim, self.gate_width, n)

    def take_share(self, share: Share) -> None:
        """See Mixer."""
        self.n_heads, self.n_kv_heads = self.n_heads // share.n, self.n_kv_heads // share.n
        self.width, self.gate_width = self.width // share.n, self.gate_width // share.n

    @property
    def carry_name(self) -> Hashable | None:
        """See Mixer: the encoding's."""
        return self.positional.carry_name

    @property
    def exchanges(self) -> bool:
        """See Mixer."""
        return True

    def forward(
        self, x: Tensor, where: TokenContext, state: AttentionState | None = None
    ) -> tuple[Tensor, AttentionState | None]:
        """See Mixer."""
        return self.forward_with_carry(x, where, state, None)[:2]

    def forward_with_carry(
        self, x: Tensor, where: TokenContext, state: AttentionState | None, carry: Tensor | None
    ) -> tuple[Tensor, AttentionState | None, Tensor | None]:
        """See Mixer; a carry is returned where the encoding has one."""
        qkv, conv, convolved, gate = self.in_proj(x), None, None, None
        if self.gate_width:
            qkv, gate = qkv.split([self.width, self.gate_width], dim=-1)
        if self.d_conv:
            before = before_part(where.ranks, state)
            qkv, initial = inputs_before(qkv, self.d_conv - 1, where, None if before is None else before.conv)
            asked = {"starts": where.starts, "return_state": state is not None}
            qkv, conv = causal_conv1d(qkv, self.conv_weight, self.conv_bias, initial_state=initial, **asked)
            if state is not None:
                after_part(where.ranks, replace(state, conv=conv), state)
                convolved = _last_outputs(state.convolved, qkv, self.d_conv - 1)
        heads = [self.n_heads, self.n_kv_heads, self.n_kv_heads]
        q, k, v = qkv.unflatten(-1, (-1, self.head_dim)).split(heads, dim=2)
        if self.qk_norm:
            q = rms_norm(q, self.q_norm_weight, self.norm_eps, zero_centred=self.zero_centred)
            k = rms_norm(k, self.k_norm_weight, self.norm_eps, zero_centred=self.zero_centred)
        encoding, divided = self.positional, None if state is None else state.divided
        past = None if state is None else state.terms if divided is None else divided.last
        if encoding.carry_name is not None:
            terms = encoding.read_carry(x, where, carry)
        else:
            terms = terms_over(where.ranks, encoding, x, where, None if past is None else past[:, -1])
        if not encoding.caches_raw_keys:
            q, k = encoding.on_qk(q, k, where, terms)
        own, own_terms, part = where, terms, where.whole is not None
        if where.whole is not None:
            q, k, v, terms = whole_pass(own, q, k, v, terms, divided is not None)
            where = where.whole
        elif (ranks := where.ranks) is not None:
            reach = None if self.window is None or self.sinks else self.window - 1
            sent = [k, v, terms] if terms is not None and encoding.caches_all_terms else [k, v]
            q, (k, v, *rest) = with_earlier_ranks(ranks, q, sent, reach)
            terms = rest[0] if rest else terms
        if state is not None and divided is not None:
            cache = state.cache
            keys = divided_keys(cache, state.terms, k, v, terms, where, divided.ranks, self.soft_cap)
        else:
            cache = KVCache(k, v) if state is None else state.cache.append(k, v)
            keys = self._keys(cache, terms, where, state)
        all_keys, seen = keys, where
        if part and divided is None:
            keys, seen = of_part(own, keys, encoding.caches_all_terms), own
        if self.temperature is not None:
            keys = keys.scaled_by(self.temperature(seen, self.window))
        y, lse = encoding.attend(q, keys, return_lse=self.has_sink_logit or divided is not None)
        if divided is not None and lse is not None:
            y, lse = merged(divided.ranks, y, lse, part)
        if self.has_sink_logit and lse is not None:
            y = y * torch.sigmoid(lse - self.sink_logit)[..., None].to(y.dtype)
        if encoding.carry_name is not None:
            y, carry = encoding.write_carry(y, replace(keys, terms=own_terms) if part else keys)
        y = y.flatten(2) if gate is None else y.flatten(2) * gate.sigmoid()
        y = self.out_proj(y)
        if state is None:
            return y, None, carry
        all_terms = encoding.caches_all_terms
        if divided is not None:
            return y, next_part(divided.ranks, state, (k, v, terms), conv, where, all_terms), carry
        after = state_after(cache, all_keys.terms, conv, where, state, self.window, self.sinks, all_terms)
        return y, after if convolved is None else replace(after, convolved=convolved), carry

    def _keys(self, cache: KVCache, terms: Tensor | None, where: TokenContext, state: AttentionState | None) -> Keys:
        k, v = cache.k, cache.v
        n_past = k.shape[1] - len(where.positions)
        if state is None:
            alive = None if where.ranks is None else alive_of_earlier(where, n_past)
        else:
            alive = state.alive
            if terms is not None and state.terms is not None and self.positional.caches_all_terms:
                terms = torch.cat([state.terms.to(terms.dtype), terms], dim=1)[:, -k.shape[1] :]
        positions = where.positions
        if n_past:
            positions = where.once(("key positions", n_past), lambda: where.positions_after(n_past))
        documents = None
        if where.documents is not None or alive is not None:
            documents = where.once(
                ("documents of keys", n_past, id(alive)),
                lambda: where.documents_after(len(k), n_past, alive),
            )
        settings = self.window, self.sinks, where.consecutive
        return Keys(k, v, positions, where, terms, documents, *settings, soft_cap=self.soft_cap)

    def divided_state(self, batch: int, ranks: ContextRanks) -> AttentionState:
        """See Mixer; a window's few keys are not divided."""
        state, encoding = self.new_state(batch), self.positional
        if self.window is not None:
            return state
        allowed = "one whose attention over parts of the keys can be merged"
        require("model.positional", type(encoding).__name__, encoding.mergeable, allowed)
        return replace(state, divided=Divided(ranks))

    def new_state(self, batch: int) -> AttentionState:
        """See Mixer."""
        weight = self.out_proj.weight
        empty = weight.new_zeros(batch, 0, self.n_kv_heads, self.head_dim)
        conv = weight.new_zeros(batch, self.d_conv - 1, self.width) if self.d_conv else None
        return AttentionState(KVCache(empty, empty), None, None, conv)

    @staticmethod
    def cost(config: AttentionConfig, d_model: int, length: int) -> Cost:
        """See Mixer."""
        n_heads, n_kv_heads = config.heads(d_model)
        width, inner = (n_heads + 2 * n_kv_heads) * config.head_dim, n_heads * config.head_dim
        projected = width + inner if config.output_gate else width
        matrices = d_model * projected + inner * d_model
        params = matrices + (projected if config.bias else 0) + (d_model if config.has_output_bias else 0)
        params += width * (config.d_conv + 1) if config.d_conv else 0
        params += 2 * config.head_dim if config.qk_norm else 0
        encoding, shape = config.positional, config.shape(d_model)
        params += encoding.cls.params(encoding.config, shape) + (n_heads if config.sink_logit else 0)
        if config.temperature is not None:
            params += config.temperature.cls.params(config.temperature.config, shape)
        seen = config.visible_keys
        window = length if seen is None else min(seen, length)
        # mean over positions 1..length of min(position, window)
        visible = window - window * (window - 1) / (2 * length)
        flops = 2 * matrices + 4 * visible * inner + 2 * config.d_conv * width
        flops += encoding.cls.flops(encoding.config, shape, visible, length)
        cached = length if seen is None or config.sinks else min(seen - 1, length)
        fixed = 4 * max(config.d_conv - 1, 0) * width
        terms = encoding.cls.term_width(encoding.config, shape)
        grows = terms if encoding.cls.caches_all_terms else 0
        size = encoding.cls.term_bytes
        fixed += size * (terms - grows)
        kept = cached if seen is None or config.sinks else min(seen, length)  # one more than keys
        return Cost(params, flops, fixed, cached * 4 * 2 * n_kv_heads * config.head_dim + kept * size * grows)


def _last_outputs(known: Tensor | None, new: Tensor, n: int) -> Tensor | None:
    """The last n outputs of the convolution, where a state keeps them."""
    return None if known is None else torch.cat([known.to(new.dtype), new[:, -n:]], dim=1)[:, -n:]


def _encoders(config: AttentionConfig, d_model: int) -> tuple[PositionalEncoding, Temperature | None]:
    shape, temperature = config.shape(d_model), None
    with inside_layer(""):
        positional = config.positional.create(shape)
    if config.temperature is not None:
        with inside("temperature"):
            temperature = config.temperature.create(shape)
    return positional, temperature
