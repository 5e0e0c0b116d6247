"""Extensions of Mamba2 layers, without training: how fast the state forgets, how much it takes in, how far back it reaches.

    dt_scale      Delta times s: decay and input together      MambaExtend, Azizi et al. 2025 (ICLR)
    a_scale       A times s (linear), or exp(s log A) (log)    Mamba Modulation, Lu, Huang et al. 2025, arXiv 2509.19633
    stuffed       A times `retention`, inputs times `insertion`      Chen et al. 2024, arXiv 2410.07145, sec. 4
    state_window  the exact state of the last w tokens alone, by the difference of two scans      ibid.

Each wraps the mixer's scan, so prefill and decoding change alike, and the checkpoint stays as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.extend.calibrate import CalibrationConfig, calibrate, values_per_layer
from lcprobe.models.extend.contract import Extension, ExtensionContext
from lcprobe.models.extend.layers import scan_layers
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.contract import Mixer, Scan
from lcprobe.models.state import State

W = TypeVar("W", bound=Scan)


def wrap_scan(mixer: Mixer, wrapper: Callable[[Scan], W]) -> W:
    """Put a wrapper around a mixer's scan, in place; the wrapper."""
    assert mixer.scan is not None, "scan_layers gives mixers with a scan"
    wrapped = wrapper(mixer.scan)
    mixer.scan = wrapped
    return wrapped


@dataclass
class ScaledScan:
    """A scan with A and what the input writes multiplied; B enters y only through the state, so C carries its factor."""

    scan: Scan
    a: float = 1.0
    log_a: float = 1.0
    gain: float = 1.0

    def __call__(
        self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Any, **options: Any
    ) -> tuple[Tensor, Any]:
        """See `lcprobe_kernels.ssd.ssd`."""
        if self.log_a != 1.0:
            A = -((-A).log() * self.log_a).exp()
        A = A if self.a == 1.0 else A * self.a
        C = C if self.gain == 1.0 else C * self.gain
        return self.scan(x, dt, A, B, C, *rest, **options)


@dataclass(frozen=True)
class ScaleConfig:
    """One number for all layers, one a layer, or a search."""

    scale: float | list[float] | None = None
    """Of every layer, or a list; null: calibrate layer by layer on training text of factor x context_length."""
    search: CalibrationConfig = field(default_factory=CalibrationConfig)
    """The budget of the calibration."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a scale that is not positive."""
        values = self.scale if isinstance(self.scale, list) else [self.scale or 1.0]
        require(
            f"{at}.scale",
            self.scale,
            all(v > 0 for v in values) and self.scale != 0,
            "> 0, one number or one a layer",
        )


@dataclass(frozen=True)
class AScaleConfig(ScaleConfig):
    """And which of the two published forms."""

    mode: Literal["linear", "log"] = "linear"
    """linear: A times s; log: the logarithm of -A times s."""


class Mamba2Extension(Extension):
    """What changes Mamba2 layers does so at every length alike: its factor is a number, not each length's own."""

    acts_on: ClassVar[str] = "mamba2"
    name: ClassVar[str]

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """As the base. Raises ConfigError for an open factor."""
        reason = super().not_applicable(model, context)
        if reason is None and context.factor is None:
            raise ConfigError("pe.factor", "auto", f"a number: {self.name} changes a model for one length")
        return reason


class DtScale(Mamba2Extension):
    """dt times s after softplus and limits: A dt and B dt both."""

    Config = ScaleConfig
    name: ClassVar[str] = "dt_scale"

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """As the base. Raises ConfigError for a list of another length than there are layers."""
        reason = super().not_applicable(model, context)
        if reason is None:
            values_per_layer(self.config.scale, len(scan_layers(model, self.name)), f"pe.extend.{self.name}.scale")
        return reason

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Give every Mamba2 layer its scale."""
        layers = scan_layers(model, self.name)
        wrapped = [wrap_scan(layer, ScaledScan) for layer in layers]

        def put(number: int, value: float) -> None:
            self.put(wrapped[number], value)

        values = values_per_layer(self.config.scale, len(layers), f"pe.extend.{self.name}.scale")
        if values is None:
            values = calibrate(model, len(layers), put, context, self.config.search, self.name)
        for number, value in enumerate(values):
            put(number, value)

    def put(self, scan: ScaledScan, value: float) -> None:
        """Set one layer's scale."""
        scan.a = scan.gain = value


class AScale(DtScale):
    """A alone: the decay changes, what is written stays."""

    Config = AScaleConfig
    name = "a_scale"

    def put(self, scan: ScaledScan, value: float) -> None:
        """Set one layer's scale."""
        if self.config.mode == "linear":
            scan.a = value
        else:
            scan.log_a = value


@dataclass(frozen=True)
class StuffedConfig:
    """How much faster the state forgets, and how much less it takes in."""

    retention: float = 1.5
    """A times this: above 1 forgets faster."""
    insertion: float = 0.8
    """What is written times this."""

    def check(self, at: str) -> None:
        """Raises ConfigError for numbers that are not positive."""
        require(f"{at}.retention", self.retention, self.retention > 0, "> 0")
        require(f"{at}.insertion", self.insertion, self.insertion > 0, "> 0")


class Stuffed(Mamba2Extension):
    """Forget more, take in less: against a state that is fuller than training ever made it."""

    Config = StuffedConfig
    name: ClassVar[str] = "stuffed"

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Put both factors around every Mamba2 layer's scan."""
        for layer in scan_layers(model, "stuffed"):
            scaled = wrap_scan(layer, ScaledScan)
            scaled.a, scaled.gain = self.config.retention, self.config.insertion


@dataclass(frozen=True)
class StateWindowConfig:
    """How far the state reaches."""

    window: int | None = None
    """Tokens in the state; null: the training context length."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 1."""
        require(f"{at}.window", self.window, self.window is None or self.window >= 1, ">= 1 or null")


@dataclass(frozen=True)
class WindowState(State):
    """whole: the state of everything; late: of what left the window; x, dt, b: the last `window` tokens' inputs."""

    whole: Tensor
    late: Tensor
    x: Tensor
    dt: Tensor
    b: Tensor


class StateWindow(Mamba2Extension):
    """y_t = C_t (h_t - prod of decays over the window * h_{t-w}): what the last w tokens wrote, exactly."""

    Config = StateWindowConfig
    name: ClassVar[str] = "state_window"

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Replace every Mamba2 layer's scan."""
        for layer in scan_layers(model, "state_window"):
            window = self.config.window or context.context_length
            wrap_scan(layer, lambda scan, window=window: WindowScan(scan, window))


@dataclass
class WindowScan:
    """Two scans: of everything, and of the inputs `window` tokens late, read out at the present and faded over the window."""

    scan: Scan
    window: int

    def __call__(
        self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, dt_bias: Tensor | None = None,
        *, dt_limit: tuple[float, float], initial_state: Any, starts: Tensor | None, return_state: bool, **options: Any,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """See `lcprobe_kernels.ssd.ssd`. Raises ConfigError for packed documents: a window reaches over their edges."""
        if starts is not None:
            raise ConfigError("pe.extend", "state_window", "one document a row")
        w = self.window
        if isinstance(initial_state, WindowState):
            held = initial_state
        else:
            zero = initial_state if initial_state is not None else x.new_zeros(x.shape[0], *x.shape[2:], B.shape[3])
            pads = [t.new_zeros(t.shape[0], w, *t.shape[2:]) for t in (x, dt, B)]
            held = WindowState(zero, torch.zeros_like(zero), pads[0], pads[1].fill_(float("-inf")), pads[2])
        common = {"dt_limit": dt_limit, "starts": None, "return_state": True, **options}
        y, whole = self.scan(x, dt, A, B, C, D, dt_bias, initial_state=held.whole, **common)
        all_x, all_dt, all_b = (torch.cat(pair, 1) for pair in ((held.x, x), (held.dt, dt), (held.b, B)))
        n = x.shape[1]
        late, after = self.scan(
            all_x[:, :n], all_dt[:, :n], A, all_b[:, :n], C, None, dt_bias, initial_state=held.late, **common
        )
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        steps = all_dt.to(acc_dtype) if dt_bias is None else all_dt.to(acc_dtype) + dt_bias.to(acc_dtype)
        logs = (F.softplus(steps).clamp(*dt_limit).double() * A.double()).cumsum(
            1
        )  # sums over a window by difference
        faded = (logs[:, w:] - logs[:, :n]).exp().to(acc_dtype)
        y = (y.to(acc_dtype) - faded[..., None] * late.to(acc_dtype)).to(x.dtype)
        if not return_state:
            return y, None
        return y, WindowState(whole, after, *(t[:, n:].clone() for t in (all_x, all_dt, all_b)))
