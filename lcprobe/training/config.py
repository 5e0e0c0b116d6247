"""What can be set about training. Imports no torch: `train.py --help` reads this file in milliseconds."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from lcprobe.choices import Choice
from lcprobe.errors import require
from lcprobe.models.positional.schedule import ENCODING_PATTERN, EncodingPattern
from lcprobe.training import INITIAL_STATES


@dataclass(frozen=True)
class SwitchConfig:
    """Other positional encodings from some step on: dropping RoPE, then recalibrating (DroPE, arXiv 2512.12167)."""

    at: float
    """Share of the budget after which they change."""
    positional: Annotated[EncodingPattern, ENCODING_PATTERN] = field(
        default_factory=lambda: ENCODING_PATTERN.convert("none", "train.switch.positional")
    )
    """What attention layers carry from then on, as model.positional; without learned parameters, before and after."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a share outside 0 .. 1."""
        require(f"{at}.at", self.at, 0 < self.at < 1, "0 < at < 1")


@dataclass(frozen=True)
class TrainConfig:
    """Budget, optimiser, schedule, precision and checkpoints of one run."""

    context_length: int = 512
    """Tokens of a training sequence; the report calls this length 1x."""
    tokens: int = 50_000_000
    """Budget in tokens, equal for every run of a study."""
    batch_tokens: int = 16_384
    """Tokens an optimiser step over all devices and accumulation; a multiple of context_length."""
    accumulate: int = 1
    """Forward passes a step on each device."""
    lr: float = 1e-3
    """Peak learning rate. Recurrent mixers learn recall in a narrow window: see study.lr_sweep."""
    warmup: float = 0.02
    """Share of the budget over which lr rises."""
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """Shape of lr after the warm-up; wsd stays flat, then falls linearly over the share `decay`."""
    decay: float = 0.2
    """Share of the budget at the end over which wsd falls."""
    final_lr: float = 0.0
    """Learning rate at the end as a fraction of lr (cosine and wsd)."""
    weight_decay: float = 0.1
    """Decoupled weight decay; none on norms, biases, convolutions, A_log, dt_bias, D."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's moment decays."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    from_: str | None = None
    """A run or checkpoint folder whose weights are the start: the budget is then that of the training after it. Its model must
    have the same parameters; encodings without parameters may differ. The data come in an order of their own."""
    initial_state: Annotated[Choice | None, INITIAL_STATES] = None
    """What recurrent layers hold before a sequence: `{type: passed}`, `preceding`, `noise`, `fitted`; null: nothing."""
    switch: SwitchConfig | None = None
    """Change positional encodings while training; null: never."""
    clip: float = 1.0
    """Gradient norm is clipped to this."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic: float32, or bfloat16 autocast over float32 weights (GPUs)."""
    compile: bool = False
    """torch.compile the blocks: pays off on long runs only."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to train."""
    devices: int = 1
    """Processes (one a device); more than one trains data-parallel, started by torchrun --nproc-per-node."""
    threads: int | None = None
    """CPU threads of one process; null: as many as there are cores. Results repeat bit by bit for equal counts only."""
    checkpoint_every: int | None = None
    """Tokens between checkpoints; null: a tenth of the budget."""
    keep: int = 2
    """Checkpoints kept, newest first."""
    log_every: int = 20
    """Steps between rows of metrics."""
    probe_every: int | None = None
    """Tokens between probes of a small fixed subset while training; null: a fifth of the budget; 0: never."""

    def check(self, at: str) -> None:
        """Rules between values. Raises ConfigError (exit code 2) at the first that does not hold; changes nothing."""
        require(f"{at}.context_length", self.context_length, self.context_length >= 2, ">= 2")
        require(f"{at}.accumulate", self.accumulate, self.accumulate >= 1, ">= 1")
        require(f"{at}.devices", self.devices, self.devices >= 1, ">= 1")
        parts = self.context_length * self.accumulate * self.devices
        multiple = self.batch_tokens >= 1 and self.batch_tokens % parts == 0
        allowed = f"a multiple of context_length x accumulate x devices ({parts})"
        require(f"{at}.batch_tokens", self.batch_tokens, multiple, allowed)
        if self.initial_state is not None:
            rows = self.batch_tokens // parts  # imports torch, for those who ask for a state alone
            self.initial_state.create().check_rows(rows, f"{at}.initial_state")
        require(
            f"{at}.tokens", self.tokens, self.tokens >= self.batch_tokens, f">= batch_tokens ({self.batch_tokens})"
        )
        require(f"{at}.lr", self.lr, self.lr > 0, "> 0")
        require(f"{at}.warmup", self.warmup, 0 <= self.warmup < 1, "0 <= warmup < 1")
        require(f"{at}.decay", self.decay, 0 <= self.decay <= 1 - self.warmup, f"0 .. {1 - self.warmup} (1 - warmup)")
        require(f"{at}.final_lr", self.final_lr, 0 <= self.final_lr <= 1, "0 .. 1")
        require(f"{at}.weight_decay", self.weight_decay, self.weight_decay >= 0, ">= 0")
        require(f"{at}.betas", list(self.betas), all(0 <= b < 1 for b in self.betas), "two numbers in 0 <= beta < 1")
        require(f"{at}.eps", self.eps, self.eps > 0, "> 0")
        require(f"{at}.clip", self.clip, self.clip > 0, "> 0")
        require(f"{at}.threads", self.threads, self.threads is None or self.threads >= 1, ">= 1 or null")
        require(f"{at}.keep", self.keep, self.keep >= 1, ">= 1")
        require(f"{at}.log_every", self.log_every, self.log_every >= 1, ">= 1")
        every = self.checkpoint_every
        require(f"{at}.checkpoint_every", every, every is None or every >= 1, ">= 1 or null")
        every = self.probe_every
        require(f"{at}.probe_every", every, every is None or every >= 0, ">= 0 or null")

    @property
    def switch_step(self) -> int | None:
        """The first step with the encodings of `switch`."""
        return None if self.switch is None else max(1, round(self.switch.at * self.steps))

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole budget."""
        return self.tokens // self.batch_tokens

    @property
    def rows(self) -> int:
        """Rows of context_length tokens a step."""
        return self.batch_tokens // self.context_length
