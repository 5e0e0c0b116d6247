"""Lightning attention: linear attention with a fixed decay per head and block (Qin et al. 2024, arXiv 2401.04658;
MiniMax 2025, arXiv 2501.08313).

    q, k, v = silu(in_proj(x))                 gate = in_proj(x)
    S_t = exp(-s) S_{t-1} + k_t v_t^T          o_t = q_t^T S_t          per head, S: (head_dim, head_dim)
    y = out_proj(rms_norm(o) * sigmoid(gate)), the norm over all heads

Decays of head h = 1 .. H, which are no parameters:

    minimax    s = 2^(-8 h / H) (1 + 1e-5 - l / (L - 1 + 1e-5))     in block l = 0 .. L - 1, all blocks counted
    retnet     exp(-s) = 1 - 2^(-4 - h)                             in all blocks (Sun et al. 2023, arXiv 2307.08621)

With `minimax` and the same weights it equals the lightning attention of transformers' MiniMax, where heads are 128
wide and together wider than the model (`head_dim: 128, expand: 1.3333` at d_model 6144). Of RetNet it has the decays,
not the rotations, the norm per head and the gate's swish. The recurrence is Mamba2's with steps of 1, a group per
head and fixed A: `lcprobe_kernels.ssd`, on a GPU in Triton. One matrix projects to q, k, v and gate.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from lcprobe_kernels.rms_norm import rms_norm
from lcprobe_kernels.ssd import ssd
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.context_parallel.recurrences import ssd_over
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.state import State
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class LightningConfig(MixerConfig):
    """Heads and decays of lightning attention."""

    head_dim: int = 64
    """Width of a head's queries, keys and values."""
    expand: float = 1.0
    """Ratio of the width of all heads to d_model."""
    decays: Literal["minimax", "retnet"] = "minimax"
    """Fixed decays: `minimax`, slower in deeper blocks, almost 1 in the last; `retnet`, the same in all blocks."""
    chunk_size: int | None = None
    """Tokens per chunk of the matrix form; null: fast on the device. Changes speed and rounding only."""
    norm_eps: float = 1e-6
    """Epsilon of the norm over all heads' outputs, added to the mean square."""

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes below 1."""
        require(f"{at}.head_dim", self.head_dim, self.head_dim >= 1, ">= 1")
        require(f"{at}.chunk_size", self.chunk_size, self.chunk_size is None or self.chunk_size >= 1, ">= 1 or null")
        for name in ("expand", "norm_eps"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) > 0, "> 0")

    def width(self, d_model: int) -> int:
        """Width of all heads. Raises ConfigError where they do not divide."""
        width = round(self.expand * d_model)
        if width % self.head_dim or not width:
            raise ConfigError("head_dim", self.head_dim, f"a divisor of expand x d_model ({width})")
        return width


@dataclass(frozen=True)
class LightningState(State):
    """memory: (batch, n_heads, head_dim of values, head_dim of keys), float32 or wider."""

    recurrent = ("memory",)

    memory: Tensor


class Lightning(Mixer[LightningConfig, LightningState]):
    """Linear attention with a fixed decay per head, without softmax."""

    Config = LightningConfig
    state_type = LightningState

    def __init__(self, config: LightningConfig, d_model: int):
        super().__init__(config, d_model)
        self.config, self.width = config, config.width(d_model)
        self.n_heads = self.width // config.head_dim
        self.in_proj = nn.Linear(d_model, 4 * self.width, bias=False)
        self.norm_weight = nn.Parameter(torch.empty(self.width))
        self.out_proj = nn.Linear(self.width, d_model, bias=False)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised."""
        if name == "norm_weight":
            value.fill_(1.0)
        else:
            super().init_parameter(name, value, generator)

    def log_decays(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """-s of every head, for the block that the mixer is in: (n_heads,)."""
        head = torch.arange(1, self.n_heads + 1, dtype=dtype, device=device)
        if self.config.decays == "retnet":
            return torch.log1p(-torch.exp2(-4 - head))
        block, n_blocks = self.depth
        return -torch.exp2(-8 / self.n_heads * head) * (1 + 1e-5 - block / (n_blocks - 1 + 1e-5))

    @property
    def exchanges(self) -> bool:
        """See Mixer."""
        return True

    def forward(
        self, x: Tensor, where: TokenContext, state: LightningState | None = None
    ) -> tuple[Tensor, LightningState | None]:
        """See Mixer."""
        qkv, gate = self.in_proj(x).split([3 * self.width, self.width], dim=-1)
        q, k, v = F.silu(qkv).unflatten(-1, (3, self.n_heads, self.config.head_dim)).unbind(2)
        decays = self.log_decays(torch.promote_types(x.dtype, torch.float32), x.device)
        inputs = (v, v.new_zeros(v.shape[:3]), decays, k, q)
        if state is None and where.ranks is not None:
            options = {"starts": where.starts, "chunk_size": self.config.chunk_size}
            y, memory = ssd_over(where.ranks, *inputs, dt_limit=(1.0, 1.0), **options), None
        else:
            y, memory = ssd(
                *inputs,
                dt_limit=(1.0, 1.0),
                initial_state=None if state is None else state.memory,
                starts=where.starts,
                chunk_size=self.config.chunk_size,
                return_state=state is not None,
            )
        y = rms_norm(y.flatten(2), self.norm_weight, self.config.norm_eps) * gate.sigmoid()
        return self.out_proj(y), None if memory is None else LightningState(memory)

    def new_state(self, batch: int) -> LightningState:
        """See Mixer."""
        weight, hd = self.out_proj.weight, self.config.head_dim
        acc_dtype = torch.promote_types(weight.dtype, torch.float32)
        return LightningState(weight.new_zeros(batch, self.n_heads, hd, hd, dtype=acc_dtype))

    @staticmethod
    def cost(config: LightningConfig, d_model: int, length: int) -> Cost:
        """See Mixer; nothing depends on length."""
        width, hd = config.width(d_model), config.head_dim
        matrices = 5 * d_model * width
        # the causal halves of q k^T and of its product with v; then writing and reading states
        core = 2 * (config.chunk_size or 64) * width + 4 * width * hd
        return Cost(matrices + width, 2 * matrices + core, 4 * width * hd, 0)
