"""Inputs of both sides: encodings with perturbed parameters, random tensors, and what equations read of them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lcprobe.choices import choose
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parameters import owners
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape, Keys, PositionalEncoding
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build
from validation.oracles.encodings import EquationInputs

DOUBLE, SINGLE = 1e-12, 1e-5
"""Tolerances on numbers of the order of 1: everything in float64, and something in float32."""
SHAPE = HeadShape(4, 2, 16, 12, context_length=64)
N, CONTEXT, FACTOR = 70, 16, 4.0
"""Tokens of the inputs; the training length of models under a method, and the factor by which it extends that."""


@dataclass(frozen=True)
class Comparison:
    """The outcome of one comparison. name: of the encoding, method or mixer; what: the quantity; tolerance: of their
    difference.
    """

    name: str
    what: str
    ours: Tensor
    theirs: Tensor
    tolerance: float

    @property
    def difference(self) -> float:
        """The largest absolute difference."""
        return float((self.ours.detach().double() - self.theirs.detach().double()).abs().max())


def tolerance_for(dtype: torch.dtype) -> float:
    """The tolerance where the other side is float64, or has the same dtype as ours."""
    return DOUBLE if dtype == torch.float64 else SINGLE


def label(kind: dict[str, Any]) -> str:
    """`t5 n_buckets=8`, for tables; lists are omitted."""
    return " ".join([kind["type"], *(f"{k}={v}" for k, v in kind.items() if k != "type" and not isinstance(v, list))])


def build_encoding(kind: dict[str, Any], dtype: torch.dtype = torch.float64, shape: HeadShape = SHAPE) -> Any:
    """An encoding as initialised, plus noise, so that no parameter has a value at which it makes no difference."""
    choice = choose(POSITIONAL, kind, "positional")
    encoding = choice.create(shape).double()
    parameters = dict(encoding.named_parameters())
    for i, (name, owner, own_name) in enumerate(owners(encoding)):
        generator, parameter = torch.Generator().manual_seed(i), parameters[name]
        with torch.no_grad():
            owner.init_parameter(own_name, parameter.data, generator)
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(parameter.to(dtype))
    return encoding.to(dtype).requires_grad_(False)


def random_inputs(dtype: torch.dtype = torch.float64, n: int = N) -> list[Tensor]:
    """q, k, v and x: (2, n, heads, head_dim) each, x (2, n, d_model)."""
    g = torch.Generator().manual_seed(0)
    sizes = [(h, SHAPE.head_dim) for h in (SHAPE.n_heads, SHAPE.n_kv_heads, SHAPE.n_kv_heads)] + [(SHAPE.d_model,)]
    return [torch.randn(2, n, *size, generator=g, dtype=torch.float64).to(dtype) for size in sizes]


def outputs(e: PositionalEncoding, inputs: list[Tensor], window: int | None = None) -> Tensor:
    """A layer's outputs for queries, keys, values and x; for absolute encodings, the embedding of x."""
    q, k, v, x = inputs
    where = TokenContext(torch.arange(x.shape[1]), length=x.shape[1])
    if e.family == "absolute":
        return e.on_embedding(x, where)
    if e.carry_name is None:
        terms = e.token_terms(x, where, None)
        if not e.caches_raw_keys:
            q, k = e.on_qk(q, k, where, terms)
        return e.attend(q, Keys(k, v, where.positions, where, terms, window=window))[0]
    out, carry = q, None
    for _ in range(2):  # the second layer reads what the first wrote
        keys = Keys(k, v, where.positions, where, e.read_carry(x, where, carry), window=window)
        out, carry = e.write_carry(e.attend(q, keys)[0], keys)
    return out


def equation_inputs(
    e: PositionalEncoding,
    inputs: list[Tensor],
    at: Tensor | None = None,
    window: int | None = None,
    config: Any = None,
    length: int | None = None,
) -> EquationInputs:
    """The inputs of an encoding's equation, in float64."""
    q, k, v, x = (t.double() for t in inputs)
    group, parameters = q.shape[2] // k.shape[2], {name: p.double() for name, p in e.named_parameters()}
    k, v = (t.repeat_interleave(group, 2) for t in (k, v))
    at = torch.arange(q.shape[1]) if at is None else at
    length = length or e.shape.context_length or len(at)
    return EquationInputs(q, k, v, x, at.double(), parameters, config or e.config, length, group, window)


def mixer_under(kind: dict[str, Any], layout: str, dtype: torch.dtype, positional: str = "rope") -> tuple[Any, Any]:
    """The mixer of a model's first block under a method at FACTOR times CONTEXT, and the method's settings."""
    choice = choose(EXTENSIONS, kind, "pe.extend")
    attention = {
        "n_heads": SHAPE.n_heads,
        "n_kv_heads": SHAPE.n_kv_heads,
        "head_dim": SHAPE.head_dim,
        "positional": {"type": positional},
    }
    mixers = {"attention": attention, "mamba2": {"head_dim": 8, "d_state": 4, "chunk_size": 8}}
    sizes = {
        "layout": layout,
        "d_model": SHAPE.d_model,
        "d_ff": 16,
        "vocab_size": 32,
        "mixers": mixers,
        "initializer_range": 0.5,
    }
    model = LanguageModel(build(ModelConfig, sizes, "model")).initialise(2).to(dtype).eval().requires_grad_(False)

    def text(n: int, length: int, seed: int) -> Tensor:
        return torch.randint(32, (n, length), generator=torch.Generator().manual_seed(seed))

    model = extended(model, choice.create(), ExtensionContext(CONTEXT, FACTOR, text))
    return model.blocks[0].mixer, choice.config


def method_outputs(kind: dict[str, Any], dtype: torch.dtype) -> Tensor:
    """Outputs of RoPE under a method."""
    return outputs(mixer_under(kind, "attention+mlp", dtype)[0].positional, random_inputs(dtype))
