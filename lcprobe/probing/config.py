"""The settings of probing. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from lcprobe.errors import ConfigError, require, require_names, unknown_name
from lcprobe.files import check_name
from lcprobe.lengths import LENGTH, MAX_TOKENS, Length, check_lengths, multiples, tokens_of
from lcprobe.probing.substring import CONTINUATION
from lcprobe.schema import Converter, build
from lcprobe.tasks.names import CONTROLS, HAYSTACKS, KINDS
from lcprobe.tasks.presets import TASK, TaskChoice

Precision = Literal["32", "bf16"]
Engine = Literal["auto", "native", "transformers"]
TEMPLATE_LEVELS = ("auto", "none", "chat", "instruction", "rwkv", "paper")
MAX_SHARE = 1024
"""Processes that share a context, at most."""
MAX_MINUTES = 600_000
"""Of hang_minutes."""
MAX_STRATA, MAX_SAMPLES = 1000, 1 << 20
"""Strata of depth, and samples of a cell or windows of text, at most."""


class StrataConverter(Converter):
    """Reads a number of strata; see `Annotated` in lcprobe.schema."""

    def convert(self, value: object, key: str) -> int:
        """Raises ConfigError for anything but a whole number from 1 on, such as a list of depths."""
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
        if 1 <= number <= MAX_STRATA and number == number // 1:
            return int(number)
        raise ConfigError(key, value, self.allowed())

    def allowed(self) -> str:
        """What may be written."""
        return f"a number of strata, such as 3, at most {MAX_STRATA}"


STRATA = StrataConverter()


@dataclass(frozen=True)
class Grid:
    """A fully crossed grid: every task x length x stratum of depth x haystack x key x value."""

    tasks: list[str] = field(default_factory=list)
    """Names from probe.tasks; empty: all of them."""
    lengths: list[Annotated[Length, LENGTH]] = field(default_factory=lambda: multiples(0.25, 0.5, 1, 2, 4, 8))
    """Multiples of the training length, or tokens: [64t, 1Kt]. Models of several training lengths are all probed at
    every length that any of them reaches by its multiples."""
    depths: Annotated[int, STRATA] = 5
    """Strata of equal width in which the target needle's depth is drawn, a place in each for every sample. 1:
    anywhere."""
    haystack: list[str] = field(default_factory=lambda: ["corpus"])
    """corpus | noise | words | python | json | csv | markdown | logs | needles."""
    key: list[str] = field(default_factory=lambda: ["words"])
    """words | numbers | uuids | hex."""
    value: list[str] = field(default_factory=lambda: ["numbers"])
    """words | numbers | uuids | hex."""
    controls: list[str] = field(default_factory=lambda: ["none"])
    """none, and controls: zero_distance | no_needle | wrong_key | query_only."""
    n: int = 250
    """Samples per cell; the same ones in every cell and model. From 250 on, 95 % intervals of a cell cover 93 to 97
    %."""

    def check(self, at: str) -> None:
        """Raises ConfigError for empty or unknown levels."""
        levels_of = {"haystack": HAYSTACKS, "key": KINDS, "value": KINDS, "controls": CONTROLS}
        for name, allowed in levels_of.items():
            require_names(f"{at}.{name}", getattr(self, name), allowed)
        check_lengths(self.lengths, f"{at}.lengths")
        require(f"{at}.n", self.n, 1 <= self.n <= MAX_SAMPLES, f"1 .. {MAX_SAMPLES}")

    def tokens(self, context_lengths: Sequence[int], key: str = "probe.grids.lengths") -> list[int]:
        """The lengths in tokens for models of these training lengths, ascending. Raises ConfigError naming `key` for
        a multiple that is no whole number of tokens at one of them."""
        return tokens_of(self.lengths, context_lengths, key)


@dataclass(frozen=True)
class ContextProbe:
    """Measurements on plain held-out text: loss by position, the state, and how far back predictions depend."""

    lengths: list[Annotated[Length, LENGTH]] = field(default_factory=lambda: multiples(0.5, 1, 2, 4, 8))
    """Lengths at which remembrance is measured, multiples of the training length or tokens; the longest is the length
    of a window."""
    n: int = 32
    """Windows of held-out text; the same ones for every model."""
    kept: list[int] = field(default_factory=lambda: [4, 16, 64, 256, 1024, 4096])
    """Remembrance: how many of the last tokens are read again without what precedes them; values below each length
    are used."""

    def check(self, at: str) -> None:
        """Raises ConfigError for empty levels and counts below one."""
        check_lengths(self.lengths, f"{at}.lengths")
        require(f"{at}.n", self.n, 2 <= self.n <= MAX_SAMPLES, f"2 .. {MAX_SAMPLES}")
        require(f"{at}.kept", self.kept, all(k >= 1 for k in self.kept), "tokens >= 1")

    def tokens(self, context_lengths: Sequence[int]) -> list[int]:
        """The lengths in tokens, ascending. Raises ConfigError for a multiple that is no whole number of tokens."""
        return tokens_of(self.lengths, context_lengths, "probe.context.lengths")


@dataclass(frozen=True)
class HarnessConfig:
    """`evaluate.py --harness`: tasks of lm-eval."""

    limit: int | None = None
    """Documents per task, the first ones; null: all. lm-eval builds all of them in any case."""
    max_seq_lengths: list[int] = field(default_factory=lambda: [4096])
    """Lengths of lm-eval's RULER tasks, in tokens as lm-eval counts them."""
    online: bool = False
    """Let lm-eval download data sets; otherwise data that is neither built nor cached here is an error at once."""

    def check(self, at: str) -> None:
        """Raises ConfigError for no documents, and for lengths at which lm-eval's generators hang."""
        require(f"{at}.limit", self.limit, self.limit is None or self.limit >= 1, ">= 1 or null")
        lengths, shortest = self.max_seq_lengths, 1024  # below it some hang, others lose the answer
        allowed = f"at least one length, each >= {shortest} (lm-eval's generators hang or lose their content below)"
        require(f"{at}.max_seq_lengths", lengths, bool(lengths) and all(n >= shortest for n in lengths), allowed)


@dataclass(frozen=True)
class FrozenConfig:
    """`evaluate.py --frozen`: prompts from files, unchanged."""

    tokens: int | None = None
    """Greedy tokens per prompt; null: RULER's number for the task that file or folder is named after, else 128."""
    rule: Literal["auto", "all", "part"] = "auto"
    """RULER's substring rule: share of the references in the output, or any of them; auto: part where file or folder
    is named after qa (qa_1, ruler_qa_1)."""
    limit: int | None = None
    """Prompts per file, the first ones; null: all."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts below one."""
        for name in ("tokens", "limit"):
            value = getattr(self, name)
            require(f"{at}.{name}", value, value is None or value >= 1, ">= 1 or null")


@dataclass(frozen=True)
class ServerConfig:
    """Servers that answer probes (`openai:URL`, `vllm:URL`): how they are asked, and what their numbers are compared
    with first."""

    model: str | None = None
    """The model's name on the server; null: the first one of /v1/models."""
    reference: str | None = None
    """The same weights for an engine here, a folder or hf:ORG/NAME: samples of the grid are scored by both before
    anything is probed; null: nothing is compared, and the report says so."""
    samples: int = 32
    """Samples that are compared."""
    limit: float = 0.05
    """Largest difference of an answer token's log-probability, in nats; above it the server is refused."""
    batch: int = 16
    """Prompts in one request."""
    timeout_s: float = 600.0
    """Seconds to wait for an answer."""
    retries: int = 6
    """Further tries after a lost connection, a timeout, or status 408, 429, 500, 502, 503 or 504."""
    backoff_s: float = 0.5
    """Seconds before the first of them; doubled each time, up to a minute."""
    key_file: str | None = None
    """File with the key that the server asks for, sent as `Authorization: Bearer`; null: none."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts and times that cannot be."""
        for name in ("samples", "batch"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) >= 1, ">= 1")
        require(f"{at}.limit", self.limit, self.limit > 0, "> 0 nats")
        require(f"{at}.timeout_s", self.timeout_s, self.timeout_s > 0, "> 0 seconds")
        require(f"{at}.retries", self.retries, self.retries >= 0, ">= 0")
        require(f"{at}.backoff_s", self.backoff_s, self.backoff_s >= 0, ">= 0 seconds")


@dataclass(frozen=True)
class PublishedModel:
    """A model that lcprobe did not train, with what is known better than its files say."""

    address: str
    """A folder, `hf:ORG/NAME`, `hf:ORG/NAME@REVISION`, or a server: `openai:URL`, `vllm:URL`."""
    name: str | None = None
    """Name in records and report; null: the last part of the address."""
    engine: Engine = "auto"
    """Engine that runs it: native (lcprobe's own mixers), transformers, or auto: native where the format is known."""
    tokenizer: str | None = None
    """Name on the hub, folder or tokenizer.json; null: the one known for it, or in its folder."""
    bos: str | None = None
    """Token before every prompt; `none`: no token; null: the rule known for it, or the tokenizer's usual one."""
    chat: bool | None = None
    """Whether it follows a chat template; null: whether that is known, or its tokenizer has one."""
    context_length: int | None = None
    """Training length in tokens; null: the one known for it, or in its config.json."""
    settings: dict[str, Any] | None = None
    """What neither config.json nor the weights say, in the settings of its format: `{definition: ...}` of
    Mamba-3; null: nothing."""

    def check(self, at: str) -> None:
        """Raises ConfigError for names and lengths that cannot be."""
        require(f"{at}.address", self.address, bool(self.address.strip()), "a folder, hf:ORG/NAME or a server")
        if self.name is not None:
            check_name(f"{at}.name", self.name)
        length = self.context_length
        require(f"{at}.context_length", length, length is None or 2 <= length <= MAX_TOKENS, f"2 .. {MAX_TOKENS}")


class PublishedModelConverter(Converter):
    """Reads an address, or a mapping of PublishedModel."""

    def convert(self, value: object, key: str) -> PublishedModel:
        """Raises ConfigError for anything else."""
        return build(PublishedModel, {"address": value} if isinstance(value, str) else value, key)

    def allowed(self) -> str:
        """What may be written."""
        return "an address such as hf:ORG/NAME, or {address: ..., name: ..., context_length: ...}"


PUBLISHED = PublishedModelConverter()


@dataclass(frozen=True)
class CompatConfig:
    """Faults of other people's code that can be had on purpose, to repeat numbers that were measured with them. What
    was probed with one is never read for a model without it."""

    mamba_ssm_conv_bug: bool = False
    """Decode as mamba_ssm does in attention layers that have a convolution (its mamba2attn models): at the end of the
    prompt, the convolution's last outputs take the place of its last inputs. The first d_conv - 1 decoded tokens are
    convolved with them, and their wrong keys and values stay in the cache. The answer's first token is right."""

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the faults that are asked for."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name))


NO_FAULTS = CompatConfig()


@dataclass(frozen=True)
class ExportConfig:
    """`lcprobe export`: samples as text for other harnesses."""

    bos: bool = False
    """Begin every prompt with the text of the BOS token, for harnesses that add none; they read it as one token."""


@dataclass(frozen=True)
class ProbeConfig:
    """Tasks, grids and scoring."""

    tasks: dict[str, Annotated[TaskChoice, TASK]] = field(default_factory=dict)
    """Tasks by name: `{multikey: {type: niah, n_keys: 4}, s1: ruler/niah_single_1}`; `formats` in one fixes its
    formats."""
    grids: list[Grid] = field(default_factory=list)
    """Grids; cells that two grids share are run once, with the larger n."""
    equal_length: Literal["tokens", "text"] = "tokens"
    """What models of several tokenizers have in common at one length: tokens (each reads episodes of as many of its
    own) or text (all read the same characters, as many tokens of the first model's tokenizer)."""
    templates: list[str] = field(default_factory=lambda: ["auto"])
    """Prompt templates, each a variant of every model: auto (a model's own chat template where it was trained to
    follow it, else none), none, chat (its own), instruction, rwkv, paper (as in the scripts of arXiv 2407.08112)."""
    scoring: Literal["teacher_forced", "generate"] = "teacher_forced"
    """One forward pass over prompt and answer, or greedy decoding of the answer's length; exact match agrees."""
    continuation: Annotated[int | str | None, CONTINUATION] = None
    """Greedy tokens after every prompt, in which RULER's substring score looks for the answer: a number, `ruler` (128
    for niah, 30 vt, 120 cwe, 50 fwe, 32 qa) or null: none, and no such score."""
    precision: Precision = "32"
    """Precision of probing, whatever the model was trained in: 32 is float32, bf16 is bfloat16 autocast with float32
    weights and logits (for GPUs). What was probed in one is never read for the other."""
    weights: Precision = "32"
    """Dtype in which the weights of published models are loaded: 32 (float32) or bf16 (half the memory)."""
    split: bool = False
    """Spread the layers of each model over all GPUs of the machine, about equal in bytes, for one that does not fit
    on one of them; processes on other machines can share a study instead."""
    context_parallel: int = 1
    """Processes, on a GPU each, that share every context: each reads its part of a prompt and has its part of the
    keys and values, for contexts that do not fit one device. They are started here, or by torchrun or srun."""
    hang_minutes: float | None = None
    """With context_parallel, minutes in a pass after which the first process ends with exit code 75, says which one
    does not answer, and writes what each of its own threads was doing to hang-PID.txt in the study's folder; null:
    10, or 30 times the longest pass where that is more; 0: never. The others end where it is silent for as long."""
    batch_tokens: int = 32_768
    """Rows times length of a batch; halved and tried again when memory runs out. Shared prefixes are read once."""
    chunk: int = 1024
    """Tokens of a prefill chunk, of all processes that share it together; the state is carried, so memory does not
    grow with length for recurrent mixers."""
    cache_gb: float = 2.0
    """Gigabytes of built episodes, up to 32K tokens each, that `evaluate.py` keeps beside the prepared data; the
    least recently used are deleted. 0: none."""
    context: ContextProbe | None = None
    """Measurements on plain held-out text besides the grids; null: none."""
    while_training: Grid | None = None
    """A small grid that is probed during training; null: none."""
    policies: list[str] | None = None
    """No-retrieval policies of `--cheat` by name; null: all of them."""
    harness: HarnessConfig = field(default_factory=HarnessConfig)
    """lm-eval tasks."""
    frozen: FrozenConfig = field(default_factory=FrozenConfig)
    """Prompts from files."""
    server: ServerConfig = field(default_factory=ServerConfig)
    """Servers that answer probes."""
    export: ExportConfig = field(default_factory=ExportConfig)
    """Samples for other harnesses."""

    def check_lengths(self, context_lengths: Sequence[int]) -> None:
        """Raises ConfigError for a multiple of the grids or of the plain text that is no whole number of tokens at
        one of these training lengths."""
        for i, grid in enumerate(self.grids):
            grid.tokens(context_lengths, f"probe.grids[{i}].lengths")
        if self.context is not None:
            self.context.tokens(context_lengths)

    def check(self, at: str) -> None:
        """Raises ConfigError for unknown tasks and sizes below one."""
        for task in self.tasks.values():
            task.resolve()
        require_names(f"{at}.templates", self.templates, TEMPLATE_LEVELS)
        require(f"{at}.batch_tokens", self.batch_tokens, self.batch_tokens >= 1, ">= 1")
        require(f"{at}.chunk", self.chunk, self.chunk >= 1, ">= 1")
        share = self.context_parallel
        require(f"{at}.context_parallel", share, 1 <= share <= MAX_SHARE, f"1 .. {MAX_SHARE}")
        minutes = self.hang_minutes
        fits = minutes is None or 0 <= minutes <= MAX_MINUTES
        require(f"{at}.hang_minutes", minutes, fits, f"0 .. {MAX_MINUTES} or null")
        require(f"{at}.split", self.split, not self.split or share == 1, "false with context_parallel")
        require(f"{at}.cache_gb", self.cache_gb, self.cache_gb >= 0, ">= 0")
        grids = [(f"{at}.grids[{i}]", grid) for i, grid in enumerate(self.grids)]
        if self.while_training is not None:
            grids.append((f"{at}.while_training", self.while_training))
        for where, grid in grids:
            for task in grid.tasks:
                if task not in self.tasks:
                    raise unknown_name(f"{where}.tasks", task, self.tasks)
