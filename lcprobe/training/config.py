"""Settings of training. Imports no torch, so that `--help` takes milliseconds."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from lcprobe.choices import Choice
from lcprobe.errors import require
from lcprobe.files import check_path
from lcprobe.lengths import MAX_TOKENS, LengthStage, schedule_text
from lcprobe.models.extend.config import TRAINED_EXTENSION, TrainedExtension
from lcprobe.models.positional.schedule import ENCODING_PATTERN, EncodingPattern
from lcprobe.schema import TOTAL
from lcprobe.training import INITIAL_STATES

MAX_THREADS = 1024
MAX_WORKERS, MAX_PREFETCH = 256, 1024
MAX_HOURS = 10_000
HANG_MINUTES = 10.0
"""Where train.hang_minutes is null."""


@dataclass(frozen=True)
class SwitchConfig:
    """A change of positional encodings during training: dropping RoPE, then recalibrating (DroPE, arXiv
    2512.12167)."""

    at: float
    """Share of the token budget after which positional encodings change."""
    positional: Annotated[EncodingPattern, ENCODING_PATTERN] = field(
        default_factory=lambda: ENCODING_PATTERN.convert("none", "train.switch.positional")
    )
    """Positional encodings of attention layers after the change, written as model.positional. Encodings before and
    after it must have no learned parameters."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a share outside 0 .. 1."""
        require(f"{at}.at", self.at, 0 < self.at < 1, "0 < at < 1")


@dataclass(frozen=True)
class GuardsConfig:
    """What training does when a step goes wrong. A run that left out steps has another data digest than the others of
    its study, and the report says so."""

    non_finite: Literal["skip", "rewind", "stop"] = "skip"
    """A gradient that is not finite. skip: that step changes nothing, and training stops (exit code 4) at more than
    10 in a row or among 1,000; rewind: go back to a checkpoint before the steps that are left out, which is kept for
    that; stop: exit code 4 at once. Checkpoints are finite in any case. Where such a checkpoint is gone
    (rewinding was not asked for when it was removed, or it is damaged), a rewind goes to the oldest that is left, and
    what was trained before it stays; before the first checkpoint is due, to the start."""
    spikes: Literal["record", "rewind"] = "record"
    """A loss that stands out from those of the 128 steps before. record: log and count it; rewind: as for
    non_finite. A change of context length, of the mixture or of encodings may be one."""
    spike_size: float = 10.0
    """How far above their median a loss is a spike, in standard deviations as the median absolute deviation estimates
    them (at least 1 % of the median)."""
    leave_out: int = 20
    """Steps that a rewind leaves out on either side of the bad one."""
    rewinds: int = 3
    """How often a run is rewound; then it stops with exit code 4."""

    @property
    def goes_back(self) -> bool:
        """Whether a run may be rewound."""
        return "rewind" in (self.non_finite, self.spikes) and self.rewinds > 0

    def check(self, at: str) -> None:
        """Raises ConfigError for values out of range."""
        require(f"{at}.spike_size", self.spike_size, self.spike_size >= 1, ">= 1")
        require(f"{at}.leave_out", self.leave_out, 0 <= self.leave_out <= 100_000, "0 .. 100000")
        require(f"{at}.rewinds", self.rewinds, 0 <= self.rewinds <= 1000, "0 .. 1000")


@dataclass(frozen=True)
class TrainConfig:
    """Budget, optimiser, schedule, precision and checkpoints of one run."""

    context_length: int = 512
    """Tokens per training sequence; the report calls this length 1x."""
    length_schedule: list[LengthStage] = field(default_factory=list)
    """A curriculum of context lengths, such as [{until: 0.5, length: 0.25}, {length: 1}]; empty: context_length
    throughout. The batch in tokens is constant: a shorter sequence means more of them. context_length is the longest
    of the schedule."""
    tokens: Annotated[int, TOTAL] = 50_000_000
    """Training budget in tokens of every run."""
    batch_tokens: int = 16_384
    """Tokens per optimiser step, over all devices and accumulated passes; a multiple of context_length."""
    accumulate: int = 1
    """Forward passes per optimiser step on each device (gradient accumulation)."""
    lr: float = 1e-3
    """Peak learning rate. Recurrent mixers learn recall in a narrow range of rates: see study.lr_sweep."""
    warmup: float = 0.02
    """Share of the budget over which the learning rate rises to lr."""
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """Learning rate after the warm-up: cosine decay, wsd (constant, then linear decay over the share `decay`), or
    constant."""
    decay: float = 0.2
    """Share of the budget, at its end, over which the learning rate of wsd decays."""
    final_lr: float = 0.0
    """Final learning rate as a fraction of lr (cosine and wsd)."""
    weight_decay: float = 0.1
    """Decoupled weight decay; norms, biases, convolutions, A_log, dt_bias and D have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of AdamW's moments."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    from_: str | None = None
    """Folder of a run or checkpoint whose weights training starts from; null: random weights. The budget counts from
    there. The model must have the same parameters; encodings without parameters may differ. The order of
    batches differs from that of a run without `from`."""
    initial_state: Annotated[Choice | None, INITIAL_STATES] = None
    """State of recurrent layers before each training sequence: passed, preceding, noise or fitted; null: zeros."""
    extend: Annotated[TrainedExtension | None, TRAINED_EXTENSION] = None
    """Extension of the positional encodings that the model is trained with, where it continues from a run that was
    trained at a shorter length: `yarn`, or `{type: yarn, ramp: rotations, factor: 4}`, a method of pe.extend that
    needs no calibration. It extends the training length of the run in `from` (of the first one, where that run was
    extended itself, whose extension it replaces) by `factor`, by default context_length / that length. null: none."""
    switch: SwitchConfig | None = None
    """Change of positional encodings during training; null: none."""
    clip: float = 1.0
    """Norm to which gradients are clipped."""
    precision: Literal["32", "bf16"] = "32"
    """Precision of training: 32 is float32, bf16 is bfloat16 autocast with float32 weights (for GPUs)."""
    compile: bool = False
    """Apply torch.compile to the blocks: it pays off on long runs only."""
    deterministic: bool = False
    """Gradients that repeat to the bit on a GPU too, which an exact resume needs there, at some cost of speed: by
    torch.use_deterministic_algorithms, which warns where PyTorch has no such operation, and by kernels whose
    gradients are deterministic. On a CPU all are."""
    recompute: bool = False
    """Keep only the input of each block for the backward pass, which computes the block again: a third more compute,
    several times less memory, the same results."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Kind of device to train on; auto: a GPU where there is one."""
    devices: int = 1
    """Number of devices, over all machines, with one process each; several are started by torchrun or srun. They
    divide the rows of a step, except those that tensor_parallel and context_parallel use."""
    strategy: Literal["auto", "ddp", "fsdp2", "tp"] = "auto"
    """How several devices hold the model: ddp, each a copy; fsdp2, each a shard of every parameter, gradient and
    moment; tp, groups of tensor_parallel devices divide heads and widths of layers. auto: tp where tensor_parallel is
    above 1, ddp otherwise. One device trains the same steps without any."""
    tensor_parallel: int = 1
    """Devices that divide each layer among them; with fsdp2 they shard what each then has as well."""
    context_parallel: int = 1
    """Devices that divide each sequence among them, in equal chunks: recurrent layers hand on their state, attention
    its keys and values."""
    threads: int | None = None
    """CPU threads per process; null: one per core. Results are bit-identical only for equal numbers of threads."""
    workers: int | None = None
    """Processes that make batches ahead, for each training process; 0: it makes them itself; null: 2 where it trains
    on a GPU, 0 on a CPU, whose cores compute, and where the batches of the whole budget are kept for the next model.
    Batches are the same."""
    prefetch: int = 2
    """Steps that each of these processes makes ahead."""
    checkpoint_every: Annotated[int | None, TOTAL] = None
    """Tokens between checkpoints; null: a tenth of the budget."""
    keep: int = 2
    """How many of the newest checkpoints are kept; with guards that rewind, at least two, and up to
    two more where they are less than guards.leave_out steps apart. There must be room for another one when a run
    begins."""
    guards: GuardsConfig = field(default_factory=GuardsConfig)
    """What to do about gradients that are not finite, and about losses that stand out."""
    max_hours: float | None = None
    """Hours after its start at which the process saves at the end of a step and ends with exit code 75; null: none.
    The same command resumes. It is the time of one process: the next one, which a launcher starts at once, has
    as much again. What a whole job may take is a setting of the launcher, or of the scheduler."""
    hang_minutes: float | None = None
    """Minutes without a step or a batch after which a process ends with exit code 75 and writes what each of its
    threads was doing to hang-RANK.txt in the run's folder; null: 10, or 30 times the longest step where that is more;
    0: never. Probes, checkpoints and compiling do not count. Waiting for other processes within them ends after four
    times as long."""
    log_every: int = 20
    """Optimiser steps between rows of metrics.csv."""
    probe_every: Annotated[int | None, TOTAL] = None
    """Tokens between probes of probe.while_training; null: a fifth of the budget; 0: never."""

    def check(self, at: str) -> None:
        """Raises ConfigError at the first rule between values that does not hold."""
        length, threads = self.context_length, self.threads
        require(f"{at}.context_length", length, 2 <= length <= MAX_TOKENS, f">= 2 and <= {MAX_TOKENS}")
        require(f"{at}.accumulate", self.accumulate, self.accumulate >= 1, ">= 1")
        require(f"{at}.devices", self.devices, self.devices >= 1, ">= 1")
        self._check_division(at)
        if self.initial_state is not None:
            # the next line imports torch, only where there is a state
            self.initial_state.create().check_rows(self.rows, f"{at}.initial_state")
        require(
            f"{at}.tokens", self.tokens, self.tokens >= self.batch_tokens, f">= batch_tokens ({self.batch_tokens})"
        )
        self._check_schedule(f"{at}.length_schedule")
        require(f"{at}.lr", self.lr, self.lr > 0, "> 0")
        require(f"{at}.warmup", self.warmup, 0 <= self.warmup < 1, "0 <= warmup < 1")
        require(f"{at}.decay", self.decay, 0 <= self.decay <= 1 - self.warmup, f"0 .. {1 - self.warmup} (1 - warmup)")
        require(f"{at}.final_lr", self.final_lr, 0 <= self.final_lr <= 1, "0 .. 1")
        require(f"{at}.weight_decay", self.weight_decay, self.weight_decay >= 0, ">= 0")
        require(f"{at}.betas", list(self.betas), all(0 <= b < 1 for b in self.betas), "two numbers in 0 <= beta < 1")
        require(f"{at}.eps", self.eps, self.eps > 0, "> 0")
        require(f"{at}.clip", self.clip, self.clip > 0, "> 0")
        fits = threads is None or 1 <= threads <= MAX_THREADS
        require(f"{at}.threads", threads, fits, f"1 .. {MAX_THREADS} or null")
        workers = self.workers
        fits = workers is None or 0 <= workers <= MAX_WORKERS
        require(f"{at}.workers", workers, fits, f"0 .. {MAX_WORKERS} or null")
        require(f"{at}.prefetch", self.prefetch, 1 <= self.prefetch <= MAX_PREFETCH, f"1 .. {MAX_PREFETCH}")
        require(f"{at}.keep", self.keep, self.keep >= 1, ">= 1")
        require(f"{at}.log_every", self.log_every, self.log_every >= 1, ">= 1")
        if self.from_ is not None:
            check_path(f"{at}.from", self.from_)
        every = self.checkpoint_every
        require(f"{at}.checkpoint_every", every, every is None or every >= 1, ">= 1 or null")
        hours, minutes = self.max_hours, self.hang_minutes
        require(f"{at}.max_hours", hours, hours is None or 0 < hours <= MAX_HOURS, f"> 0 and <= {MAX_HOURS}, or null")
        fits = minutes is None or 0 <= minutes <= 60 * MAX_HOURS
        require(f"{at}.hang_minutes", minutes, fits, f"0 .. {60 * MAX_HOURS} or null")
        every = self.probe_every
        require(f"{at}.probe_every", every, every is None or every >= 0, ">= 0 or null")

    def _check_division(self, at: str) -> None:
        """Raises ConfigError where devices, or the rows of a step, do not divide."""
        devices, tensor, context = self.devices, self.tensor_parallel, self.context_parallel
        for name, size in (("tensor_parallel", tensor), ("context_parallel", context)):
            require(f"{at}.{name}", size, size >= 1, ">= 1")
        if context > 1:
            self._check_chunks(at)
        fits = devices % (tensor * context) == 0
        divided = f"tensor_parallel x context_parallel ({tensor * context})"
        require(f"{at}.devices", devices, fits, f"a multiple of {divided}")
        if tensor > 1:
            require(
                f"{at}.strategy", self.strategy, self.strategy != "ddp", f"tp | fsdp2, with tensor_parallel {tensor}"
            )
        if self.strategy == "tp" and devices > 1:
            require(f"{at}.tensor_parallel", tensor, tensor > 1, "> 1, with strategy tp")
        parts = self.context_length * self.parts
        multiple = self.batch_tokens >= 1 and self.batch_tokens % parts == 0
        which = "devices" if tensor * context == 1 else f"devices / {divided}"
        allowed = f"a multiple of context_length x accumulate x {which} ({parts})"
        require(f"{at}.batch_tokens", self.batch_tokens, multiple, allowed)

    def _check_chunks(self, at: str) -> None:
        """Raises ConfigError where context_parallel does not divide a length."""
        context, length = self.context_parallel, self.context_length
        stages = [stage.tokens(length, f"{at}.length_schedule[{i}]") for i, stage in enumerate(self.length_schedule)]
        for tokens in (length, *stages):
            divides = tokens % context == 0
            require(f"{at}.context_parallel", context, divides, f"a divisor of every length trained at ({tokens})")

    def _check_schedule(self, at: str) -> None:
        """Raises ConfigError for shares that do not ascend to 1, for lengths that do not divide context_length, and
        for a schedule that never reaches it."""
        before, reached = 0.0, not self.length_schedule
        for i, stage in enumerate(self.length_schedule):
            require(f"{at}[{i}].until", stage.until, before < stage.until <= 1, f"{before:g} < until <= 1")
            tokens = stage.tokens(self.context_length, f"{at}[{i}]")
            # a step belongs to the stage that its middle is in
            steps = int(stage.until * self.steps + 0.5) - int(before * self.steps + 0.5)
            reached, before = reached or (tokens == self.context_length and steps > 0), stage.until
        if self.length_schedule:
            require(at, f"until {before:g}", before == 1, "a last stage with until: 1")
            given = schedule_text(self.length_schedule, self.context_length) or self.length_schedule[0].length.written
            require(at, given, reached, f"a schedule that reaches context_length ({self.context_length})")

    @property
    def hang_seconds(self) -> float:
        """Seconds without a step or a batch after which a process hangs; 0: any number."""
        return 60 * (HANG_MINUTES if self.hang_minutes is None else self.hang_minutes)

    @property
    def data_parallel(self) -> int:
        """Devices, or groups of them, that have different rows of a step."""
        return self.devices // (self.tensor_parallel * self.context_parallel)

    @property
    def parts(self) -> int:
        """Parts that a step's rows are divided in, one a forward pass."""
        return self.accumulate * self.data_parallel

    @property
    def divided_as(self) -> Literal["one", "ddp", "fsdp2", "tp"]:
        """The strategy that `strategy` means."""
        if self.devices == 1:
            return "one"
        if self.strategy == "auto":
            return "tp" if self.tensor_parallel > 1 else "ddp"
        return self.strategy

    @property
    def checkpoint_steps(self) -> int:
        """Steps between checkpoints."""
        tokens = self.checkpoint_every or max(self.batch_tokens, self.tokens // 10)
        return max(1, tokens // self.batch_tokens)

    @property
    def most_kept(self) -> int:
        """Checkpoints that are kept, at most, where none is saved before it is due."""
        if not self.guards.goes_back:
            return self.keep
        return max(self.keep, 2) if self.checkpoint_steps >= self.guards.leave_out else self.keep + 2

    @property
    def switch_step(self) -> int | None:
        """The first step with the encodings of `switch`; None without a switch."""
        return None if self.switch is None else max(1, round(self.switch.at * self.steps))

    @property
    def steps(self) -> int:
        """Optimiser steps in the whole budget."""
        return self.tokens // self.batch_tokens

    @property
    def trained_tokens(self) -> int:
        """Tokens of the whole steps: what is left of the budget is not trained."""
        return self.steps * self.batch_tokens

    @property
    def rows(self) -> int:
        """Rows of context_length tokens per step."""
        return self.batch_tokens // self.context_length
