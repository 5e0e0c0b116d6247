"""The models of the contract tests: one around every registered mixer, MLP, norm, encoding and temperature, and around
the toys.

Each runs with its default settings; the settings listed here reach further branches. A newcomer needs no entry.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lcprobe.choices import Registry
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mlps import MLPS
from lcprobe.models.norms import NORMS
from lcprobe.models.positional import POSITIONAL, TEMPERATURES
from tests.toys import registered
from validation.invariances.checks import VOCAB
from validation.invariances.ours import Ours, built
from validation.oracles.mixers import REQUIRED

CONTEXT_LENGTH, TABLE = 32, 64
"""Sequences, of SEQLEN tokens, are longer than the training length; tables of positions end beyond both."""
NARROW, WIDE = 16, 64
"""d_model: NARROW with the settings below, WIDE with a mixer's defaults, whose heads are wider."""
GROUPED = {"n_heads": 4, "n_kv_heads": 2}

MIXER_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "attention": [
        {"head_dim": 8, "d_conv": 4},
        {"head_dim": 8, **GROUPED, "window": 7, "d_conv": 3, "bias": True},
        {"head_dim": 8, "n_heads": 3, "positional": {"type": "none"}},
        {"head_dim": 8, **GROUPED, "window": 5, "window_counts_self": False, "qk_norm": True, "output_bias": True},
        {"head_dim": 8, **GROUPED, "qk_norm": True, "qk_norm_zero_centred": True, "output_gate": True, "d_conv": 4},
    ],
    "mamba1": [
        {"d_state": 3, "chunk_size": 5, "input_norm_eps": 0.01},
        {"d_state": 2, "expand": 1.5, "d_conv": 2, "dt_rank": 3, "conv_bias": False, "bias": True, "chunk_size": 1},
    ],
    "mamba2": [
        {"head_dim": 8, "d_state": 6, "chunk_size": 8},
        {"head_dim": 4, "d_state": 3, "n_groups": 2, "chunk_size": 5, "d_conv": 2, "bias": True, "conv_bias": False},
        {"head_dim": 8, "d_state": 4, "dt_limit": [0.01, 0.2], "expand": 1},
    ],
    "mamba3": [
        {"definition": "heavy_tail", "head_dim": 8, "d_state": 6, "chunk_size": 8, "rope_fraction": 1.0},
        {"definition": "softplus", "head_dim": 4, "d_state": 9, "n_groups": 2, "output_norm": True, "A_floor": 0.1},
    ],
    "gated_deltanet": [
        {"head_dim": 8, "chunk_size": 8},
        {"head_dim": 6, "expand": 0.75, "expand_v": 1.5, "value_heads": 2, "d_conv": 2, "conv_bias": True},
        {"head_dim": 4, "negative_eigenvalues": True, "chunk_size": 1},
    ],
    "kda": [
        {"head_dim": 8, "rank": 3, "chunk_size": 8},
        {"head_dim": 6, "expand": 0.75, "expand_v": 1.5, "value_heads": 2, "d_conv": 2, "conv_bias": True},
    ],
    "delta_product": [
        {"head_dim": 8, "chunk_size": 8},
        {
            "head_dim": 6,
            "n_steps": 3,
            "expand": 0.75,
            "expand_v": 1.5,
            "value_heads": 2,
            "d_conv": 2,
            "conv_bias": True,
        },
        {"head_dim": 4, "n_steps": 1, "negative_eigenvalues": False},
    ],
    "gdn2": [
        {"head_dim": 8, "rank": 3, "chunk_size": 8},
        {"head_dim": 6, "expand": 0.75, "expand_v": 1.5, "value_heads": 2, "negative_eigenvalues": True},
    ],
    "gla": [
        {"head_dim": 4, "chunk_size": 8, "rank": 3},
        {"head_dim": 6, "expand": 0.75, "expand_v": 1.5, "tau": 2.0, "chunk_size": 1},
    ],
    "lightning": [
        {"head_dim": 8, "chunk_size": 8},
        {"head_dim": 6, "expand": 1.5, "decays": "retnet", "chunk_size": 5},
    ],
    "mlstm": [
        {"head_dim": 4, "chunk_size": 8, "input_bias": 1.0, "eps": 0.01},
        {"head_dim": 6, "expand": 0.75, "expand_v": 1.5, "gate_soft_cap": 2.0, "chunk_size": 5},
    ],
    "rg_lru": [{"n_blocks": 2, "d_conv": 3}, {"expand": 1.5, "n_blocks": 1, "a_init_range": [0.5, 0.9]}],
    "rwkv6": [{"head_dim": 4, "d_mix": 3, "d_decay": 5, "chunk_size": 8}],
    "rwkv7": [
        {"head_dim": 4, "d_decay": 3, "d_rate": 5, "d_value": 2, "d_gate": 6, "chunk_size": 8},
        {"head_dim": 8, "v_first": False},
    ],
}
"""Settings of a mixer in addition to its defaults."""
MLP_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "swiglu": [{"bias": True}],
    "geglu": [{"bias": True, "gelu": "erf"}],
    "relu2": [{"bias": True}],
}
"""Settings of an MLP in addition to its defaults."""
NORM_SETTINGS: dict[str, list[dict[str, Any]]] = {"layer": [{"bias": False}]}
"""The same for norms."""
ENCODING_SETTINGS: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "rope": [({"fraction": 0.5}, {"window": 1})],
    "prope": [({"fraction": 0.5}, {})],
    "hope": [({"length": 20}, {})],
    "xpos": [({}, {"window": 6})],
    "pope": [({}, GROUPED)],
    "selective_rope": [({}, {**GROUPED, "window": 4})],
    "alibi": [({"learned": True}, {**GROUPED, "window": 7})],
    "t5": [({"n_buckets": 8, "max_distance": 20}, {})],
    "kerple": [({"kernel": "power"}, {})],
    "sandwich": [({"width": 6}, {})],
    "fire": [
        ({"threshold": "train_len", "width": 5}, {"sink_logit": True}),
        ({"initial_threshold": 9.5, "width": 5}, {"window": 30, "sink_logit": True}),
    ],
    "fox": [({"initial_bias": 2.0}, {**GROUPED, "window": 7}), ({}, {"window": 2})],
    "cable": [({}, {"window": 5, "sinks": 2})],
    "cope": [({"max_position": 6}, {}), ({"max_position": 3}, {**GROUPED, "window": 7})],
    "stick_breaking": [({"attend_current": True, "remainder": True}, {"window": 7})],
    "path": [({"rank": 3}, {}), ({"rank": 3, "d_conv": 4}, {**GROUPED, "window": 7})],
    "dape": [
        ({"width": 5}, {"sink_logit": True}),
        ({"base": "alibi", "width": 5}, {"window": 7, "sink_logit": True}),
    ],
    "tape": [
        ({"fraction": 0.5, "width": 3}, {**GROUPED, "window": 7}),
        ({"width": 3}, {"window": 5, "sinks": 2, "temperature": {"type": "ssmax"}}),
    ],
}
"""Settings of an encoding in addition to its defaults, each with settings of the attention that carries it."""
TEMPERATURE_SETTINGS: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "logn": [({"length": 4}, {"sink_logit": True})],
    "ssmax": [({}, {"window": 5, "sinks": 2, "sink_logit": True})],
}
"""The same for temperatures."""


@dataclass(frozen=True, eq=False)
class Case:
    """One model. registry: what the case is there for; settings: its ModelConfig, as written in a config."""

    registry: Registry
    name: str
    settings: Mapping[str, Any]
    label: str

    def __str__(self) -> str:
        return self.label

    @property
    def has_sinks(self) -> bool:
        """Whether first tokens of a row stay visible to all its documents."""
        return any("sinks" in mixer for mixer in self.settings["mixers"].values())

    @property
    def has_temperature(self) -> bool:
        """Whether scores depend on the number of visible keys, in addition to the encoding."""
        return any("temperature" in mixer for mixer in self.settings["mixers"].values())

    def build(self) -> LanguageModel:
        """A new model in float64; parameters that start at zero are set, so that they take part."""
        with registered():
            return built(self.settings)

    @functools.cached_property
    def model(self) -> LanguageModel:
        """One model for all tests that leave it as it is."""
        return self.build()

    @property
    def subject(self) -> Ours:
        """The model, for the checks of `validation.invariances`."""
        return Ours(self.model)


def classes_in(registry: Registry) -> dict[str, Any]:
    """Everything registered, and the toys of this registry, by name."""
    with registered():
        return {name: registry.load(name) for name in registry}


ENCODINGS = classes_in(POSITIONAL)


def default_attention(name: str) -> dict[str, Any]:
    """Attention that carries an encoding with its defaults: a learned sink takes part in the softmax wherever there
    is one."""
    return {"head_dim": 16, "n_heads": 2, "n_kv_heads": 1, "sink_logit": ENCODINGS[name].softmax}


def table_size(name: str, size: int = TABLE) -> dict[str, int]:
    """The size of an encoding's table of positions as a setting, where its Config has one."""
    fields = {field.name for field in dataclasses.fields(ENCODINGS[name].Config)}
    return {"max_length": size} if "max_length" in fields else {}


def _cases() -> Iterator[Case]:
    for name in classes_in(MIXERS):
        yield _case(MIXERS, name, name, REQUIRED.get(name, {}), d_model=WIDE)
        for settings in MIXER_SETTINGS.get(name, []):
            yield _case(MIXERS, name, name, settings)
    for registry, key, given in ((MLPS, "mlp", MLP_SETTINGS), (NORMS, "norm", NORM_SETTINGS)):
        for name in classes_in(registry):
            for own in [{}, *given.get(name, [])]:
                yield _case(registry, name, "attention", {"head_dim": 8}, **{key: {"type": name, **own}})
    parallel = {"layout": "parallel(mamba2, attention)+mlp, parallel(attention, rwkv7), attention"}
    mixers = {
        "attention": {"head_dim": 8},
        "mamba2": {"head_dim": 8, "d_state": 4, "expand": 1},
        "rwkv7": {"head_dim": 8},
    }
    for model in (
        {"sandwich_norm": True, "embedding_norm": True, "norm": "layer"},
        {"embedding_scale": "sqrt_d_model_bf16", "logit_soft_cap": 5.0, "tie_embeddings": False},
        {**parallel, "mixers": mixers},
        {**parallel, "mixers": mixers, "parallel": "sum", "sandwich_norm": True, "positional": "tape"},
    ):
        yield _case(MIXERS, "blocks", "attention", {"head_dim": 8}, **model)
    for name in ENCODINGS:
        for own, attention in [({}, default_attention(name)), *ENCODING_SETTINGS.get(name, [])]:
            encoding = {"type": name, **table_size(name), **own}
            yield _case(POSITIONAL, name, "attention", {"head_dim": 8, **attention}, positional=encoding)
    for name in classes_in(TEMPERATURES):
        for own, attention in [({}, {}), *TEMPERATURE_SETTINGS.get(name, [])]:
            temperature = {"type": name, **own}
            yield _case(TEMPERATURES, name, "attention", {"head_dim": 8, "temperature": temperature, **attention})


def _case(
    registry: Registry, name: str, mixer: str, settings: dict[str, Any], d_model: int = NARROW, **model: Any
) -> Case:
    shared = {"vocab_size": VOCAB, "d_ff": 24, "initializer_range": 0.5, "context_length": CONTEXT_LENGTH}
    layout = {"layout": f"{mixer}+mlp, {mixer}", "d_model": d_model, "mixers": {mixer: settings}}
    return Case(registry, name, {**shared, **layout, **model}, " ".join(map(str, (name, settings, *model.values()))))


CASES = list(_cases())
