"""Extensions that let Mamba2 layers pass over tokens which matter little, so that fewer decay what came before.

    decimamba    whole tokens with a small mean Delta, in the chosen layers      DeciMamba, Ben-Kish et al. 2024, arXiv 2406.14528
    longmamba    tokens with a small Delta, in heads that reach far only         LongMamba, Ye et al. 2025, arXiv 2504.16053

A token that is passed over neither writes nor decays: Delta = 0. At factor s a share of 1/s is kept, by thresholds which are the
quantiles of Delta on training text: the published top-k needs the whole sequence, a threshold needs only the token, so reading in
chunks and decoding stay exact. DeciMamba also drops such tokens from the layers above; here they go on.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.extend.contract import ExtensionContext
from lcprobe.models.extend.layers import scan_layers
from lcprobe.models.extend.recurrent import Mamba2Extension, wrap_scan
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.contract import Scan


@dataclass
class FilteredScan:
    """A scan that skips tokens below a threshold of Delta: (n_heads,) or one for all, -inf where nothing is skipped.

    by_token: one decision per token, from the mean over heads. seen: where given, step sizes are collected there, and A as rates.
    """

    scan: Scan
    threshold: Tensor
    by_token: bool
    seen: list[Tensor] | None = None
    rates: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(
        self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, dt_bias: Tensor | None = None,
        *, dt_limit: tuple[float, float], **options: Any,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """See `lcprobe_kernels.ssd.ssd`."""
        acc_dtype = torch.promote_types(dt.dtype, torch.float32)
        sizes = F.softplus(dt.to(acc_dtype) if dt_bias is None else dt.to(acc_dtype) + dt_bias.to(acc_dtype)).clamp(
            *dt_limit
        )
        if self.by_token:
            sizes = sizes.mean(-1, keepdim=True).expand_as(sizes)
        if self.seen is not None:
            self.seen.append(sizes.flatten(0, 1).detach())
            self.rates = A.detach()
        skipped = sizes < self.threshold.to(sizes.device)
        if dt_limit[0] > 0 and bool(skipped.any()):
            raise ConfigError(
                "pe.extend", "a filter of tokens", "a model whose dt_limit begins at 0: a step must be able to be 0"
            )
        dt = dt.masked_fill(skipped, float("-inf"))
        return self.scan(x, dt, A, B, C, D, dt_bias, dt_limit=dt_limit, **options)


@dataclass(frozen=True)
class FilterConfig:
    """What is kept, and where."""

    kept: float | None = None
    """Share of tokens that a filtered layer takes in; null: 1 / factor."""
    layers: list[int] | None = None
    """Mamba2 layers that are filtered, counted from 0 among them; null: all."""
    n: int = 8
    """Windows of training text for the thresholds."""
    seed: int = 0
    """Which windows."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside 0 < kept <= 1."""
        require(f"{at}.kept", self.kept, self.kept is None or 0 < self.kept <= 1, "0 < kept <= 1, or null")
        require(f"{at}.n", self.n, self.n >= 1, ">= 1")


class DeciMamba(Mamba2Extension):
    """Whole tokens are skipped."""

    Config = FilterConfig
    name: ClassVar[str] = "decimamba"
    by_token: ClassVar[bool] = True

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """As the base. Raises ConfigError for layers that there are not."""
        reason = super().not_applicable(model, context)
        if reason is None:
            n = len(scan_layers(model, self.name))
            for number in self.config.layers or []:
                require(f"pe.extend.{self.name}.layers", number, 0 <= number < n, f"0 .. {n - 1}")
        return reason

    @torch.no_grad()
    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Measure the quantiles on training text and put the filters in place."""
        kept = self._kept(context)
        layers = scan_layers(model, self.name)
        chosen = range(len(layers)) if self.config.layers is None else self.config.layers
        if kept >= 1:
            return
        if context.text is None:
            raise ConfigError(f"pe.extend.{self.name}", "no training text here", "a run whose data are at hand")
        filters = {}
        for number in chosen:
            nothing = torch.tensor(float("-inf"))
            filters[number] = wrap_scan(
                layers[number], lambda scan, nothing=nothing: FilteredScan(scan, nothing, self.by_token, [])
            )
        ids = context.text(self.config.n, context.context_length, self.config.seed)
        model.hidden(ids.to(next(model.parameters()).device))
        for found in filters.values():
            sizes = torch.cat(found.seen or [])
            found.seen = None
            edge = sizes.quantile(1 - kept, 0) * (
                1 - 1e-6
            )  # a step that equals the quantile is kept, whatever its rounding
            found.threshold = torch.where(self.reaches_far(found.rates, sizes, context), edge, -torch.inf)

    def _kept(self, context: ExtensionContext) -> float:
        if self.config.kept is not None:
            return self.config.kept
        assert context.factor is not None, "not_applicable() asks for a number"
        return 1 / context.factor

    def reaches_far(self, rates: Tensor, sizes: Tensor, context: ExtensionContext) -> Tensor:
        """(n_heads,) bool: which heads are filtered; all. rates: (n_heads,) A; sizes: (n, n_heads) Delta."""
        return torch.ones(len(rates), dtype=torch.bool, device=sizes.device)


@dataclass(frozen=True)
class LongMambaConfig(FilterConfig):
    """And which heads reach far."""

    reach: float = 1e-2
    """A head reaches far if what it wrote is still above this share after the training context length, at its mean step."""

    def check(self, at: str) -> None:
        """Raises ConfigError outside 0 < reach < 1."""
        super().check(at)
        require(f"{at}.reach", self.reach, 0 < self.reach < 1, "0 < reach < 1")


class LongMamba(DeciMamba):
    """Each far-reaching head skips the tokens that matter little to it."""

    Config = LongMambaConfig
    name = "longmamba"
    by_token = False

    def reaches_far(self, rates: Tensor, sizes: Tensor, context: ExtensionContext) -> Tensor:
        """exp(A mean(dt) L) > reach."""
        decay = rates.to(sizes.dtype) * sizes.mean(0) * context.context_length
        return decay.exp() > self.config.reach
