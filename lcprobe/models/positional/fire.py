"""FIRE: a learned function of distance relative to the query's own position
(Li et al. 2023, arXiv 2310.04418, eq. 6 and 7).

    b_ij = f(psi(i - j) / psi(max(i, L)))        psi(x) = log(1 + |c x|),  f an MLP 1 -> width -> n_heads with ReLU

Up to position L this is a table over distances; beyond it every query has biases of its own. i counts from the
document's start. L can be set in two ways, which are two different encodings:

    threshold: learned      L = |s L0|, s learned, initially 1, L0 = initial_threshold (512 in public code): the paper
    threshold: train_len    L = the training context length, fixed: in training, biases depend on distance only

c starts at 0.1; 1e-6 is added to the denominator, as in public code.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from lcprobe_kernels.attention import attention
from lcprobe_kernels.backends import without_autocast
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import require
from lcprobe.models.positional.contract import Attend, HeadShape, Keys, PositionalEncoding
from lcprobe.models.token_context import TokenContext

DENOMINATOR_EPS = 1e-6


@dataclass(frozen=True)
class FIREConfig:
    """Size of FIRE's MLP, and the position from which distances are normalised."""

    threshold: Literal["learned", "train_len"] = "learned"
    """The position L beyond which distances are normalised by the query's position. learned: a parameter; train_len:
    the training context length."""
    initial_threshold: float = 512.0
    """Initial value of a learned threshold, tokens."""
    width: int = 32
    """Hidden units of the MLP."""

    def check(self, at: str) -> None:
        """Raises ConfigError unless initial_threshold > 0 and width >= 1."""
        require(f"{at}.initial_threshold", self.initial_threshold, self.initial_threshold > 0, "> 0")
        require(f"{at}.width", self.width, self.width >= 1, ">= 1")


class FIRE(PositionalEncoding[FIREConfig]):
    """Functional interpolation for relative positions; every layer has its own MLP."""

    Config = FIREConfig
    family = "bias"
    relative = False

    def __init__(self, config: FIREConfig, shape: HeadShape):
        super().__init__(config, shape)
        if config.threshold == "learned":
            self.threshold_factor = nn.Parameter(torch.empty(()))
        else:
            shape.training_length("threshold", config.threshold, "learned")
        self.c = nn.Parameter(torch.empty(()))
        self.in_weight = nn.Parameter(torch.empty(config.width))
        self.in_bias = nn.Parameter(torch.empty(config.width))
        self.out_weight = nn.Parameter(torch.empty(shape.n_heads, config.width))
        self.out_bias = nn.Parameter(torch.empty(shape.n_heads))

    @staticmethod
    def params(config: FIREConfig, shape: HeadShape) -> int:
        """c, the MLP, and the factor of a learned threshold."""
        mlp = 2 * config.width + shape.n_heads * (config.width + 1)
        return mlp + (2 if config.threshold == "learned" else 1)

    @staticmethod
    def flops(config: FIREConfig, shape: HeadShape, visible: float, length: int) -> float:
        """The MLP at every query-key pair for sequences longer than the initial L; up to it, a table serves all
        queries."""
        reach = config.initial_threshold if config.threshold == "learned" else shape.context_length or length
        return 2 * config.width * (shape.n_heads + 1) * visible if length > reach else 0.0

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """c = 0.1, the factor 1, the MLP as PyTorch's linear layers."""
        if name in ("c", "threshold_factor"):
            value.fill_(0.1 if name == "c" else 1.0)
        else:
            bound = 1.0 if name.startswith("in") else self.config.width**-0.5
            value.uniform_(-bound, bound, generator=generator)

    def threshold(self, acc_dtype: torch.dtype) -> Tensor:
        """L as a scalar tensor."""
        if self.config.threshold == "learned":
            return (self.threshold_factor.to(acc_dtype) * self.config.initial_threshold).abs()
        return torch.full((), float(self.shape.context_length or 0), dtype=acc_dtype, device=self.c.device)

    def bias(self, distance: Tensor) -> Tensor:
        """Biases of queries up to position L, which depend on distance only."""
        return self.function(distance, self.threshold(torch.promote_types(self.c.dtype, torch.float32))).movedim(
            -1, 0
        )

    def function(self, distance: Tensor, reach: Tensor) -> Tensor:
        """f(psi(distance) / psi(reach)): the broadcast shape of both, followed by n_heads."""
        acc_dtype = torch.promote_types(self.c.dtype, torch.float32)
        c, w1, b1, w2, b2 = (
            t.to(acc_dtype) for t in (self.c, self.in_weight, self.in_bias, self.out_weight, self.out_bias)
        )
        with without_autocast(distance.device):
            normalised = (c * distance).abs().log1p() / ((c * reach).abs().log1p() + DENOMINATOR_EPS)
            return F.linear(torch.relu(normalised[..., None] * w1 + b1), w2, b2)

    @torch.compiler.disable(reason="which of its two forms applies depends on the documents")
    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding.attend: a table while every query is at a position up to L, else biases per
        query."""
        acc_dtype = torch.promote_types(self.c.dtype, torch.float32)
        where, reach = keys.where, self.threshold(acc_dtype)
        if q.is_meta:  # no positions to look at: those of training
            return super().attend(q, keys, op, return_lse)
        in_document = where.once("positions in documents", lambda: _in_document(where))
        largest = where.once("largest position in a document", lambda: int(in_document.max()))
        if keys.consecutive and largest <= float(reach.detach()):
            return super().attend(q, keys, op, return_lse)

        def bias_of(rows: Tensor) -> Tensor:
            normaliser = torch.maximum(in_document[..., rows, None].to(acc_dtype), reach)
            return self.function(keys.distances(rows, q.shape[1]), normaliser).movedim(-1, -3)

        return self.attend_with_bias(q, keys, bias_of, q.shape[2])


def _in_document(where: TokenContext) -> Tensor:
    """Position of each token relative to the first of its document: (seqlen,) or (batch, seqlen) int64."""
    doc_starts = where.doc_starts
    if where.consecutive:
        return where.positions if doc_starts is None else where.positions - doc_starts
    return where.positions - (where.drawn[0] if doc_starts is None else where.drawn[doc_starts])
