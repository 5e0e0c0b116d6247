"""What can be set about probing. Imports no torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from lcprobe.errors import ConfigError, require, unknown_name
from lcprobe.tasks.names import CONTROLS, HAYSTACKS, KINDS


@dataclass(frozen=True)
class Grid:
    """A fully crossed grid: every task x length x depth x haystack x key x value."""

    tasks: list[str] = field(default_factory=list)
    """Names from probe.tasks; empty: all of them."""
    lengths: list[float] = field(default_factory=lambda: [0.25, 0.5, 1.0, 2.0, 4.0, 8.0])
    """Multiples of the training context length."""
    depths: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    """Where the asked needle stands: 0 first .. 1 last."""
    haystack: list[str] = field(default_factory=lambda: ["corpus"])
    """corpus | noise | words | python | json | csv | markdown | logs | needles."""
    key: list[str] = field(default_factory=lambda: ["words"])
    """words | numbers | uuids | hex."""
    value: list[str] = field(default_factory=lambda: ["numbers"])
    """words | numbers | uuids | hex."""
    controls: list[str] = field(default_factory=lambda: ["none"])
    """none, and controls: zero_distance | no_needle | wrong_key | query_only."""
    n: int = 100
    """Samples a cell; the same ones in every cell and model."""

    def check(self, at: str) -> None:
        """Raises ConfigError for empty or unknown levels."""
        sets = {"haystack": HAYSTACKS, "key": KINDS, "value": KINDS, "controls": CONTROLS}
        for name, allowed in sets.items():
            levels = getattr(self, name)
            require(f"{at}.{name}", levels, len(levels) > 0, " | ".join(allowed))
            for level in levels:
                if level not in allowed:
                    raise unknown_name(f"{at}.{name}", level, allowed)
        for name in ("lengths", "depths"):
            require(f"{at}.{name}", getattr(self, name), len(getattr(self, name)) > 0, "at least one number")
        require(f"{at}.lengths", self.lengths, all(x > 0 for x in self.lengths), "multiples > 0")
        require(f"{at}.depths", self.depths, all(0 <= d <= 1 for d in self.depths), "0 .. 1")
        require(f"{at}.n", self.n, self.n >= 1, ">= 1")

    def tokens(self, context_length: int) -> list[int]:
        """The lengths in tokens. Raises ConfigError for a multiple that gives no whole number of them."""
        for multiple in self.lengths:
            if abs(multiple * context_length - round(multiple * context_length)) > 1e-6:
                raise ConfigError("probe.grids.lengths", multiple, f"a multiple that gives whole tokens of {context_length}")
        return [round(multiple * context_length) for multiple in self.lengths]


@dataclass(frozen=True)
class ProbeConfig:
    """Tasks, grids and how they are scored."""

    tasks: dict[str, Any] = field(default_factory=dict)
    """Tasks by name: `{multikey: {type: niah, n_keys: 4}}`."""
    grids: list[Grid] = field(default_factory=list)
    """Grids; cells that two grids share are run once, with the larger n."""
    scoring: Literal["teacher_forced", "generate"] = "teacher_forced"
    """One forward pass over prompt and answer, or greedy decoding of the answer's length; exact match agrees."""
    batch_tokens: int = 32_768
    """Tokens scored together; halved and tried again when memory runs out."""
    chunk: int = 1024
    """Tokens of a prefill chunk; the state is carried, so memory does not grow with length for recurrent mixers."""
    while_training: Grid | None = None
    """The small grid that is probed during training; null: none."""

    def check(self, at: str) -> None:
        """Raises ConfigError for unknown tasks and sizes below one."""
        require(f"{at}.batch_tokens", self.batch_tokens, self.batch_tokens >= 1, ">= 1")
        require(f"{at}.chunk", self.chunk, self.chunk >= 1, ">= 1")
        grids = [(f"{at}.grids[{i}]", grid) for i, grid in enumerate(self.grids)]
        if self.while_training is not None:
            grids.append((f"{at}.while_training", self.while_training))
        for where, grid in grids:
            for task in grid.tasks:
                if task not in self.tasks:
                    raise unknown_name(f"{where}.tasks", task, self.tasks)
