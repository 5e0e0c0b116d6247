"""Extensions that let Mamba2 layers skip unimportant tokens, so that the state decays less over long sequences.

    decimamba    tokens with a small mean Delta, in the selected layers    Ben-Kish et al. 2024, arXiv 2406.14528
    longmamba    tokens with a small Delta, in long-range heads only       Ye et al. 2025, arXiv 2504.16053

A skipped token neither writes nor decays the state: Delta = 0. At factor s a fraction of 1/s is kept, by thresholds
that are quantiles of Delta on training text: the published top-k needs the whole sequence, a threshold only the
token, so that reading in chunks and decoding stay exact. DeciMamba also removes such tokens from the layers above;
here they are kept.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.extend.contract import ExtensionContext
from lcprobe.models.extend.layers import scan_layers
from lcprobe.models.extend.recurrent import Mamba2Extension, wrap_scan
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.contract import Scan
from lcprobe.models.state import State


@dataclass
class FilteredScan:
    """A scan that skips tokens whose Delta is below a threshold.

    threshold: (n_heads,) or scalar, -inf where nothing is skipped. by_token: one decision per token, by the mean over
    heads. collected: a list that receives step sizes, with A in `rates`; None: nothing is recorded.
    """

    scan: Scan
    threshold: Tensor
    by_token: bool
    collected: list[Tensor] | None = None
    rates: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(
        self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor,
        D: Tensor | None = None, dt_bias: Tensor | None = None, *, dt_limit: tuple[float, float], **options: object,
    ) -> tuple[Tensor, Tensor | State | None]:  # fmt: skip
        """See `lcprobe_kernels.ssd.ssd`."""
        acc_dtype = torch.promote_types(dt.dtype, torch.float32)
        sizes = F.softplus(dt.to(acc_dtype) if dt_bias is None else dt.to(acc_dtype) + dt_bias.to(acc_dtype)).clamp(
            *dt_limit
        )
        if self.by_token:
            sizes = sizes.mean(-1, keepdim=True).expand_as(sizes)
        if self.collected is not None:
            self.collected.append(sizes.flatten(0, 1).detach())
            self.rates = A.detach()
        skipped = sizes < self.threshold.to(sizes.device)
        if dt_limit[0] > 0 and bool(skipped.any()):
            raise ConfigError(
                "pe.extend", "a filter of tokens", "a model whose dt_limit starts at 0: skipping is a step of 0"
            )
        dt = dt.masked_fill(skipped, float("-inf"))
        return self.scan(x, dt, A, B, C, D, dt_bias, dt_limit=dt_limit, **options)


@dataclass(frozen=True)
class FilterConfig:
    """The fraction of tokens that is kept, the layers that skip tokens, and the text for thresholds."""

    kept: float | None = None
    """Fraction of tokens that a filtered layer keeps; null: 1 / factor."""
    layers: list[int] | None = None
    """Mamba2 layers that are filtered, counted from 0 among the Mamba2 layers; null: all."""
    n: int = 8
    """Number of windows of training text from which thresholds are estimated."""
    seed: int = 0
    """Seed that selects the windows of training text."""

    def check(self, at: str) -> None:
        """Raises ConfigError unless 0 < kept <= 1 and n >= 1."""
        require(f"{at}.kept", self.kept, self.kept is None or 0 < self.kept <= 1, "0 < kept <= 1, or null")
        require(f"{at}.n", self.n, self.n >= 1, ">= 1")


class DeciMamba(Mamba2Extension[FilterConfig]):
    """Tokens are skipped by all heads of a layer together."""

    Config = FilterConfig
    name: ClassVar[str] = "decimamba"
    by_token: ClassVar[bool] = True

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """See Extension. Raises ConfigError for layers that do not exist."""
        reason = super().not_applicable(model, context)
        if reason is None:
            n = len(scan_layers(model, self.name))
            for number in self.config.layers or []:
                require(f"pe.extend.{self.name}.layers", number, 0 <= number < n, f"0 .. {n - 1}")
        return reason

    @torch.no_grad()
    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Wrap the scans, and set thresholds to quantiles of step sizes on training text. Raises ConfigError without
        text."""
        kept = self._kept(context)
        layers = scan_layers(model, self.name)
        numbers = range(len(layers)) if self.config.layers is None else self.config.layers
        if kept >= 1:
            return
        if context.text is None:
            raise ConfigError(f"pe.extend.{self.name}", "no training text", "a run whose training data are available")
        filters = [wrap_scan(layers[number], self._collecting) for number in numbers]
        ids = context.text(self.config.n, context.context_length, self.config.seed)
        model.hidden(ids.to(next(model.parameters()).device))
        for filtered in filters:
            sizes = torch.cat(filtered.collected or [])
            filtered.collected = None
            # a step equal to the quantile is kept, whatever its rounding
            threshold = sizes.quantile(1 - kept, 0) * (1 - 1e-6)
            long_range = self.is_long_range(filtered.rates, sizes, context)
            filtered.threshold = torch.where(long_range, threshold, -torch.inf)

    def _collecting(self, scan: Scan) -> FilteredScan:
        """A wrapper that skips nothing yet and collects step sizes."""
        return FilteredScan(scan, torch.tensor(float("-inf")), self.by_token, [])

    def _kept(self, context: ExtensionContext) -> float:
        if self.config.kept is not None:
            return self.config.kept
        assert context.factor is not None, "not_applicable requires a number"
        return 1 / context.factor

    def is_long_range(self, rates: Tensor, sizes: Tensor, context: ExtensionContext) -> Tensor:
        """Which heads are filtered, (n_heads,) bool: all. rates: (n_heads,) A; sizes: (n, n_heads) Delta."""
        return torch.ones(len(rates), dtype=torch.bool, device=sizes.device)


@dataclass(frozen=True)
class LongMambaConfig(FilterConfig):
    """What is kept, and which heads are long-range."""

    reach: float = 1e-2
    """A head is long-range if more than this fraction of its state remains after the training context length, at its
    mean step."""

    def check(self, at: str) -> None:
        """Raises ConfigError as FilterConfig does, and unless 0 < reach < 1."""
        super().check(at)
        require(f"{at}.reach", self.reach, 0 < self.reach < 1, "0 < reach < 1")


class LongMamba(DeciMamba):
    """Each long-range head skips the tokens that are unimportant to it."""

    Config = LongMambaConfig
    config: LongMambaConfig
    name = "longmamba"
    by_token = False

    def is_long_range(self, rates: Tensor, sizes: Tensor, context: ExtensionContext) -> Tensor:
        """See DeciMamba: exp(A mean(dt) L) > reach."""
        decay = rates.to(sizes.dtype) * sizes.mean(0) * context.context_length
        return decay.exp() > self.config.reach
