"""Extensions of Mamba2 layers, without training: the decay of the state, the size of its updates, or its reach.

    dt_scale      Delta times s: decay and input together          MambaExtend, Azizi et al. 2025 (ICLR)
    a_scale       A times s (linear), or exp(s log A) (log)        Mamba Modulation, Lu et al. 2025, arXiv 2509.19633
    stuffed       A times `retention`, inputs times `insertion`    Chen et al. 2024, arXiv 2410.07145, sec. 4
    state_window  the exact state of the last w tokens             ibid.; by the difference of two scans

Each wraps the mixer's scan, so that prefill and decoding change alike; the checkpoint is not changed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.extend.calibrate import CalibrationConfig, calibrate, values_per_layer
from lcprobe.models.extend.contract import ConfigT, Extension, ExtensionContext
from lcprobe.models.extend.layers import scan_layers
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.contract import Mixer, Scan
from lcprobe.models.state import State

W = TypeVar("W", bound=Scan)


def wrap_scan(mixer: Mixer, wrapper: Callable[[Scan], W]) -> W:
    """Wrap a mixer's scan in place. Returns the wrapped scan."""
    assert mixer.scan is not None, "scan_layers returns mixers with a scan"
    wrapped = wrapper(mixer.scan)
    mixer.scan = wrapped
    return wrapped


@dataclass
class ScaledScan:
    """A scan with A and the inputs scaled. B enters y only through the state, so its factor can be applied to C.

    a: factor on A; log_a: factor on log(-A); gain: factor on the inputs.
    """

    scan: Scan
    a: float = 1.0
    log_a: float = 1.0
    gain: float = 1.0

    def __call__(
        self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: object, **options: object
    ) -> tuple[Tensor, Tensor | State | None]:
        """See `lcprobe_kernels.ssd.ssd`."""
        if self.log_a != 1.0:
            A = -((-A).log() * self.log_a).exp()
        A = A if self.a == 1.0 else A * self.a
        C = C if self.gain == 1.0 else C * self.gain
        return self.scan(x, dt, A, B, C, *rest, **options)


@dataclass(frozen=True)
class ScaleConfig:
    """Scales of the layers: given, or calibrated on training text."""

    scale: float | list[float] | None = None
    """One number for all layers, or a list with one per layer; null: calibrated on training text of factor x
    context_length."""
    search: CalibrationConfig = field(default_factory=CalibrationConfig)
    """Candidates and text of the calibration."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a scale that is not positive."""
        values = self.scale if isinstance(self.scale, list) else [self.scale or 1.0]
        positive = all(v > 0 for v in values) and self.scale != 0
        require(f"{at}.scale", self.scale, positive, "> 0, one number or one per layer")


@dataclass(frozen=True)
class AScaleConfig(ScaleConfig):
    """Scales of A, and the published form of scaling."""

    mode: Literal["linear", "log"] = "linear"
    """linear: A times s; log: the logarithm of -A times s."""


class Mamba2Extension(Extension[ConfigT]):
    """Base of extensions of Mamba2 layers, which change a model for all lengths at once and need a fixed factor."""

    acts_on = "mamba2"
    trainable = False
    name: ClassVar[str]
    """Name in EXTENSIONS, for errors."""

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """See Extension. Raises ConfigError for pe.factor: auto."""
        reason = super().not_applicable(model, context)
        if reason is None and context.factor is None:
            raise ConfigError("pe.factor", "auto", f"a number: {self.name} changes a model for one length")
        return reason


class DtScale(Mamba2Extension[ScaleConfig]):
    """dt times s after softplus and clamping, which scales both A dt and B dt."""

    Config = ScaleConfig
    name: ClassVar[str] = "dt_scale"

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """See Extension. Raises ConfigError for a list whose length is not the number of layers."""
        reason = super().not_applicable(model, context)
        if reason is None:
            values_per_layer(self.config.scale, len(scan_layers(model, self.name)), f"pe.extend.{self.name}.scale")
        return reason

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Set the scale of every Mamba2 layer."""
        layers = scan_layers(model, self.name)
        scans = [wrap_scan(layer, ScaledScan) for layer in layers]

        def set_value(layer: int, value: float) -> None:
            self.set_scale(scans[layer], value)

        values = values_per_layer(self.config.scale, len(layers), f"pe.extend.{self.name}.scale")
        if values is None:
            values = calibrate(model, len(layers), set_value, context, self.config.search, self.name)
        for layer, value in enumerate(values):
            set_value(layer, value)

    def set_scale(self, scan: ScaledScan, value: float) -> None:
        """Set one layer's scale."""
        scan.a = scan.gain = value


class AScale(DtScale):
    """Scales A only: decay changes, inputs do not."""

    Config = AScaleConfig
    config: AScaleConfig
    name = "a_scale"

    def set_scale(self, scan: ScaledScan, value: float) -> None:
        """Set one layer's scale."""
        if self.config.mode == "linear":
            scan.a = value
        else:
            scan.log_a = value


@dataclass(frozen=True)
class StuffedConfig:
    """Factors on decay and inputs of Mamba2 layers."""

    retention: float = 1.5
    """Factor on A; above 1 the state decays faster."""
    insertion: float = 0.8
    """Factor on what tokens write into the state."""

    def check(self, at: str) -> None:
        """Raises ConfigError for factors that are not positive."""
        require(f"{at}.retention", self.retention, self.retention > 0, "> 0")
        require(f"{at}.insertion", self.insertion, self.insertion > 0, "> 0")


class Stuffed(Mamba2Extension[StuffedConfig]):
    """Faster decay and smaller inputs, against states that exceed those seen in training ("stuffed Mamba")."""

    Config = StuffedConfig
    name: ClassVar[str] = "stuffed"

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Wrap every Mamba2 layer's scan with both factors."""
        for layer in scan_layers(model, "stuffed"):
            scaled = wrap_scan(layer, ScaledScan)
            scaled.a, scaled.gain = self.config.retention, self.config.insertion


@dataclass(frozen=True)
class StateWindowConfig:
    """Window of a state that contains the last tokens only."""

    window: int | None = None
    """Number of last tokens that the state contains; null: the training context length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a window below 1."""
        require(f"{at}.window", self.window, self.window is None or self.window >= 1, ">= 1 or null")


@dataclass(frozen=True)
class WindowState(State):
    """whole: the state of all tokens; late: of those that have left the window; x, dt, b: inputs of the last `window`
    tokens."""

    whole: Tensor | State
    late: Tensor | State
    x: Tensor
    dt: Tensor
    b: Tensor


class StateWindow(Mamba2Extension[StateWindowConfig]):
    """y_t = C_t (h_t - product of decays over the window * h_{t-w}): exactly the contribution of the last w
    tokens."""

    Config = StateWindowConfig
    name: ClassVar[str] = "state_window"

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Wrap every Mamba2 layer's scan."""
        for layer in scan_layers(model, "state_window"):
            window = self.config.window or context.context_length
            wrap_scan(layer, lambda scan, window=window: WindowScan(scan, window))


@dataclass
class WindowScan:
    """Two scans: of all inputs, and of the inputs delayed by `window` tokens, read by the present C and decayed over
    the window."""

    scan: Scan
    window: int

    def __call__(
        self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor,
        D: Tensor | None = None, dt_bias: Tensor | None = None, *, dt_limit: tuple[float, float],
        initial_state: Tensor | State | None, starts: Tensor | None, return_state: bool, **options: object,
    ) -> tuple[Tensor, Tensor | State | None]:  # fmt: skip
        """See `lcprobe_kernels.ssd.ssd`. Raises ConfigError for packed documents, whose boundaries a window would
        cross."""
        if starts is not None:
            raise ConfigError("pe.extend", "state_window", "one document per row")
        w = self.window
        if isinstance(initial_state, WindowState):
            before = initial_state
        else:
            assert not isinstance(initial_state, State), "the state of another extension's scan"
            zero = initial_state if initial_state is not None else x.new_zeros(x.shape[0], *x.shape[2:], B.shape[3])
            pads = [t.new_zeros(t.shape[0], w, *t.shape[2:]) for t in (x, dt, B)]
            before = WindowState(zero, torch.zeros_like(zero), pads[0], pads[1].fill_(float("-inf")), pads[2])
        common = {"dt_limit": dt_limit, "starts": None, "return_state": True, **options}
        y, whole = self.scan(x, dt, A, B, C, D, dt_bias, initial_state=before.whole, **common)
        all_x, all_dt, all_b = (torch.cat(pair, 1) for pair in ((before.x, x), (before.dt, dt), (before.b, B)))
        n = x.shape[1]
        late, late_state = self.scan(
            all_x[:, :n], all_dt[:, :n], A, all_b[:, :n], C, None, dt_bias, initial_state=before.late, **common
        )
        assert whole is not None, "return_state"
        assert late_state is not None, "return_state"
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        steps = all_dt.to(acc_dtype) if dt_bias is None else all_dt.to(acc_dtype) + dt_bias.to(acc_dtype)
        logs = (F.softplus(steps).clamp(*dt_limit).double() * A.double()).cumsum(1)
        decay = (logs[:, w:] - logs[:, :n]).exp().to(acc_dtype)  # sums over a window as differences
        y = (y.to(acc_dtype) - decay[..., None] * late.to(acc_dtype)).to(x.dtype)
        if not return_state:
            return y, None
        return y, WindowState(whole, late_state, *(t[:, n:].clone() for t in (all_x, all_dt, all_b)))
