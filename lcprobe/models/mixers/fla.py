"""Layers of flash-linear-attention as mixers, by name: `fla:GatedDeltaNet` (version 0.6.0;
github.com/fla-org/flash-linear-attention), where the package is installed and a GPU is present.

A layer's settings are the arguments of its constructor, but `hidden_size`, which is d_model, and `layer_idx`: every
layer is built as the first of its model, so that RWKV7Attention has no value residual. Initial values are those of
the layer's own constructor, on a CPU, with the output projection divided by sqrt(n_layers) as in all mixers here.

Admitted are layers with a state of fixed size that keep packed documents apart: their `forward` takes hidden_states,
past_key_values and use_cache, passes on cu_seqlens, and keeps neither keys and values nor a position. The rest is
refused by name, with the reason. In rows that continue from a state documents may begin at the row's first token
only: fla has no start for a document beside the states of others.

Cost: parameters are counted on the meta device. FLOPs are those of linear maps, and 6 per number of the state for its
decay, write and read. Bytes of state are measured by reading one token. A state cannot be carried over to other text
(`train.initial_state`), since fla does not say which of its tensors that would be.
"""

import ast
import dataclasses
import functools
import inspect
import typing
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar

import torch
from lcprobe_kernels import backends
from lcprobe_kernels.packed import documents_of
from torch import Tensor, nn

from lcprobe.errors import ConfigError, NotHereError, unknown_name
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.state import State, tensors_of
from lcprobe.models.token_context import TokenContext

OUTPUTS = ("o_proj", "out_proj")
"""Names of output projections."""
PLAIN = (bool, int, float, str, NoneType)
"""Types of settings that are checked; others are passed on."""
Held = Tensor | tuple | None
"""What fla keeps of a layer: a tensor (batch, ...), tuples of such, or nothing."""


@dataclasses.dataclass(frozen=True)
class FLAState(State):
    """memory: the recurrent state, conv: last inputs of convolutions, as in fla; None before the first token."""

    memory: Held
    conv: Held


class FLAMixer(Mixer[MixerConfig, FLAState]):
    """Base of the mixers that `wrapped` makes."""

    state_type = FLAState
    divides_context = False
    layer_class: ClassVar[type[nn.Module]]
    """Class of the layer."""

    def __init__(self, config: MixerConfig, d_model: int):
        super().__init__(config, d_model)
        self.config, self.d_model = config, d_model
        self.layer = build_layer(type(self).layer_class, config, d_model)
        marked = {id(p) for p in self.layer.parameters() if "_no_weight_decay" in vars(p)}
        self.no_decay = [f"layer.{name}" for name, p in self.layer.named_parameters() if id(p) in marked]

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: as the layer's constructor draws it."""
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(generator.initial_seed())
            drawn = build_layer(type(self).layer_class, self.config, self.d_model)
        value.copy_(drawn.get_parameter(name.removeprefix("layer.")))

    def forward(
        self, x: Tensor, where: TokenContext, state: FLAState | None = None
    ) -> tuple[Tensor, FLAState | None]:
        """See Mixer. Raises ConfigError where a document begins inside a row that continues from a state."""
        if where.starts is None:
            return self._run(x, state)
        return self._run_packed(x, where, where.starts, state)

    @torch.compiler.disable(reason="counts documents on the host")
    def _run_packed(
        self, x: Tensor, where: TokenContext, starts: Tensor, state: FLAState | None
    ) -> tuple[Tensor, FLAState | None]:
        if state is not None and state.memory is not None:
            known = starts if where.starts_on_host is None else where.starts_on_host[:, -x.shape[1] :]
            if known[:, 1:].any() or not known[:, 0].all():
                given = "documents that begin inside a row that continues from a state"
                raise ConfigError(f"fla:{type(self).__name__}", given, "whole documents, or rows in one piece")
            state = FLAState(None, None)
        documents = documents_of(starts, where.boundaries)
        y, after = self._run(x.flatten(0, 1)[None], state, cu_seqlens=documents.cu_seqlens)
        return y.view(x.shape), None if after is None else after.rows(documents.last)

    def _run(self, x: Tensor, state: FLAState | None, **packed: Tensor) -> tuple[Tensor, FLAState | None]:
        cache = None
        if state is not None:
            cache = import_module("fla.models.utils").Cache()
            if state.memory is not None:  # copied: decoding writes into a cache
                own = state._map(torch.clone)
                cache.update(recurrent_state=own.memory, conv_state=own.conv, layer_idx=0, offset=0)
        y = self.layer(x, past_key_values=cache, use_cache=cache is not None, **packed)[0]
        if cache is None:
            return y, None
        held = cache[0]
        return y, FLAState(self._held(held["recurrent_state"]), self._held(held["conv_state"]))

    def _held(self, value: Any) -> Held:
        """Raises ConfigError for anything but tensors."""
        if isinstance(value, list | tuple):
            return tuple(map(self._held, value))
        if value is not None and not isinstance(value, Tensor):
            raise ConfigError(f"fla:{type(self).__name__}", f"a state with {type(value).__name__}", "one of tensors")
        return value

    def new_state(self, batch: int) -> FLAState:
        """See Mixer: fla allocates at the first token."""
        return FLAState(None, None)

    @classmethod
    def cost(cls, config: MixerConfig, d_model: int, length: int) -> Cost:  # type: ignore[override]
        """See Mixer; nothing depends on length."""
        return _cost(cls, config, d_model)


@functools.cache
def wrapped(name: str) -> type[FLAMixer]:
    """The mixer of a layer of fla. Raises, with the key `type`, NotHereError where fla cannot run, ConfigError for an
    unknown layer, and for one that does not fulfil the contract."""
    known = _layer_names()
    if known and name not in known:
        raise unknown_name("type", f"fla:{name}", [f"fla:{one}" for one in known])
    missing = backends.missing("fla")
    if missing is not None:
        raise NotHereError("type", f"fla:{name}", f"mixers that work here ({missing})")
    layer = vars(import_module("fla.layers"))[name]
    reason = next(_refused(layer), None)
    if reason is not None:
        raise ConfigError("type", f"fla:{name}", f"layers of fla that fulfil the contract of mixers ({reason})")
    output = next(output for output in OUTPUTS if f"self.{output} =" in inspect.getsource(layer.__init__))
    members = {"Config": _config_of(layer), "layer_class": layer, "residual_outputs": (f"layer.{output}.weight",)}
    return type(name, (FLAMixer,), {"__doc__": f"fla's {name}.", **members})


def _layer_names() -> list[str]:
    """Names of fla's layers, read without importing it, which needs a GPU; empty where it is not installed."""
    package = find_spec("fla")
    if package is None or not package.submodule_search_locations:
        return []
    source = Path(package.submodule_search_locations[0], "layers", "__init__.py").read_text(encoding="utf-8")
    assigned = (node for node in ast.parse(source).body if isinstance(node, ast.Assign))
    lists = (node.value for node in assigned if isinstance(t := node.targets[0], ast.Name) and t.id == "__all__")
    written = next(lists, None)
    return [] if written is None else ast.literal_eval(written)


def _refused(layer: type[nn.Module]) -> Iterator[str]:
    """Reasons why a layer is no mixer."""
    source, takes = inspect.getsource(layer.forward), inspect.signature(layer.forward).parameters
    if "attn_state" in source:
        yield "it keeps keys and values, which grow with the text: `attention` does so with all encodings"
    if not {"hidden_states", "past_key_values", "use_cache"} <= set(takes) or "recurrent_state" not in source:
        yield "it has no state"
    if "get_seq_length" in source:
        yield "its state depends on positions, which packed documents share"
    if "cu_seqlens" not in source:
        yield "it does not keep packed documents apart"
    if not any(f"self.{output} =" in inspect.getsource(layer.__init__) for output in OUTPUTS):
        yield "it has no output projection"


def _config_of(layer: type[nn.Module]) -> type[MixerConfig]:
    """A dataclass of the arguments of a layer's constructor."""
    hints, fields = typing.get_type_hints(layer.__init__), []
    for name, parameter in inspect.signature(layer.__init__).parameters.items():
        if name in ("self", "hidden_size", "layer_idx") or parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            continue
        hint, default = hints.get(name, Any), parameter.default
        parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
        hint = hint if all(part in PLAIN for part in parts) else Any
        if default is parameter.empty:
            fields.append((name, hint))
        else:
            fields.append((name, hint | None if default is None else hint, dataclasses.field(default=default)))
    return dataclasses.make_dataclass(f"{layer.__name__}Config", fields, bases=(MixerConfig,), frozen=True)


def build_layer(layer: type[nn.Module], config: MixerConfig, d_model: int) -> Any:
    """The layer on the current device. Raises ConfigError for settings that its constructor refuses."""
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    order = {"layer_idx": 0} if "layer_idx" in inspect.signature(layer.__init__).parameters else {}
    try:
        return layer(hidden_size=d_model, **order, **settings)
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError("hidden_size", d_model, f"what its constructor accepts: {text}") from None


@functools.lru_cache(maxsize=1024)
def _cost(mixer: type[FLAMixer], config: MixerConfig, d_model: int) -> Cost:
    with torch.device("meta"):
        layer = build_layer(mixer.layer_class, config, d_model)
    matrices = sum(m.weight.numel() for m in layer.modules() if isinstance(m, nn.Linear))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with device, torch.random.fork_rng(), torch.no_grad():
        own = mixer(config, d_model).eval().to(torch.bfloat16 if device.type == "cuda" else torch.float32)
        x = torch.zeros(1, 1, d_model, dtype=next(own.parameters()).dtype)
        state = own(x, TokenContext(torch.zeros(1, dtype=torch.int64)), own.new_state(1))[1]
    assert state is not None
    numbers = sum(t.numel() for t in tensors_of(state))
    memory = sum(t.numel() for t in tensors_of(state.memory))
    return Cost(sum(p.numel() for p in layer.parameters()), 2 * matrices + 6 * memory, 4 * numbers, 0)
