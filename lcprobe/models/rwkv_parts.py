"""What RWKV's mixers and channel mixing share: the token shift, low-rank maps, the norm per head, and the ramps over
channels and depth that their parameters start from (BlinkDL/RWKV-LM, RWKV-v5/src/model.py and
RWKV-v7/train_temp/src/model.py).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.models.parameters import Parametrised


def previous_tokens(x: Tensor, starts: Tensor | None, last: Tensor | None) -> Tensor:
    """The token shift: x_{t-1} at every token t, zero at a document's first token. x: (batch, seqlen, d_model).
    starts: (batch, seqlen) bool or None. last: (batch, d_model), the input before x, None for zeros."""
    first = torch.zeros_like(x[:, :1]) if last is None else last[:, None].to(x.dtype)
    previous = torch.cat([first, x[:, :-1]], dim=1)
    return previous if starts is None else previous.masked_fill(starts[..., None], 0.0)


def head_norm(y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm of each head, which is GroupNorm with one group per head. y: (batch, seqlen, n_heads, head_dim);
    weight, bias: (n_heads x head_dim,) -> (batch, seqlen, n_heads x head_dim)."""
    normed = F.layer_norm(y, y.shape[-1:], eps=eps).flatten(2)
    return torch.addcmul(bias.to(normed.dtype), normed, weight.to(normed.dtype))


class LowRank(Parametrised):
    """activation(x down) up: a correction that depends on the token, zero at initialisation."""

    no_decay = ("down", "up")

    def __init__(self, d_in: int, rank: int, d_out: int, activation: str | None, orthogonal: bool):
        """activation: tanh, sigmoid or None. orthogonal: `up` starts as 0.1 times an orthogonal matrix, as in RWKV-7,
        else uniform within 0.01, as in RWKV-6."""
        super().__init__()
        self.activation, self.orthogonal = activation, orthogonal
        self.down = nn.Parameter(torch.empty(d_in, rank))
        self.up = nn.Parameter(torch.empty(rank, d_out))

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised."""
        if name == "down":
            value.zero_()
        elif self.orthogonal:
            nn.init.orthogonal_(value, 0.1 * max(1.0, value.shape[0] / value.shape[1]) ** 0.5, generator=generator)
        else:
            value.uniform_(-0.01, 0.01, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., d_in) -> (..., d_out)."""
        low = x @ self.down
        if self.activation == "tanh":
            low = low.tanh()
        elif self.activation == "sigmoid":
            low = low.sigmoid()
        return low @ self.up


def depth_ratios(depth: tuple[int, int]) -> tuple[float, float]:
    """The release's `ratio_0_to_1` and `ratio_1_to_almost0`. depth: see Parametrised."""
    index, n_blocks = depth
    return index / max(1, n_blocks - 1), 1 - index / n_blocks


def channel_ramp(d: int, power: float) -> Tensor:
    """1 - (i / d)^power for channel i of d: the share of the previous token in an interpolation, (d,) float64."""
    return 1 - (torch.arange(d, dtype=torch.float64) / d) ** power


def unit_ramp(d: int) -> Tensor:
    """0 .. 1 over the channels, (d,) float64."""
    return torch.linspace(0, 1, d, dtype=torch.float64) if d > 1 else torch.zeros(d, dtype=torch.float64)


def init_norm_weight(value: Tensor, depth: tuple[int, int]) -> None:
    """Initial weight of the norm per head, in place: larger in deeper blocks."""
    value.fill_(((1 + depth[0]) / depth[1]) ** 0.7)
