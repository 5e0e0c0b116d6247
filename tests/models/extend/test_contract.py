"""What every extension promises, for all that is registered and for the toy: chunks and decoding equal the whole once
the length is declared, forked states continue, outputs are causal, weights are unchanged, and factor 1 is the model
as trained. A newcomer needs no entry here."""

import functools
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import Extension, ExtensionContext, extended
from lcprobe.models.language_model import LanguageModel
from tests.models.contract_cases import classes_in
from tests.models.extend.small_models import IDS, SEQLEN, VOCAB, L, logits, method, model_of, text

NAMES = list(classes_in(EXTENSIONS))
CHUNKS = ([19, *[1] * 22], [7, 1, 20, 13])
FURTHER_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "dt_scale": [{"scale": 0.5}],
    "a_scale": [{"scale": [0.5, 1.5]}, {"scale": 0.5, "mode": "log"}],
    "state_window": [{"window": 7}],
    "decimamba": [{"kept": 0.5}],
    "longmamba": [{"kept": 0.5, "reach": 1e-9}],
    "longrope": [{"long": [1.0, 1.5, 2.0, 3.0]}],
    "ntk_dynamic": [{"variant": "length"}],
    "yarn": [{"ramp": "rotations"}],
    "resonance": [{"scaling": "yarn"}],
}
"""Settings of an extension in addition to its defaults, which reach further branches."""
TOO_LARGE = {"chunk_select": {"tail": 4, "overlap": 2}}
"""In place of defaults that do not fit into a training length of L."""


def trained(dtype: torch.dtype = torch.float64) -> LanguageModel:
    """Two layers of each kind that extensions act on."""
    return model_of("[mamba2, attention+mlp] x 2", dtype)


@dataclass(frozen=True, eq=False)
class Case:
    """One extension with its settings."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} {self.settings or ''}"

    def create(self) -> Extension:
        return method(self.name, **self.settings)

    @functools.cached_property
    def takes_open_factor(self) -> bool:
        """Whether it can act at each length by what that length needs, which is `pe.factor=auto`."""
        try:
            return self.create().not_applicable(trained(), ExtensionContext(L, None, text)) is None
        except ConfigError:
            return False

    def extend(self, factor: float | None, dtype: torch.dtype = torch.float64) -> LanguageModel:
        return extended(trained(dtype), self.create(), ExtensionContext(L, factor, text))

    @functools.cached_property
    def model(self) -> LanguageModel:
        """At an open factor where it takes one, for all tests that leave the model as it is."""
        return self.extend(None if self.takes_open_factor else 4.0)


CASES = [
    Case(name, settings) for name in NAMES for settings in [TOO_LARGE.get(name, {}), *FURTHER_SETTINGS.get(name, [])]
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


AS_TRAINED = logits(trained())


@pytest.mark.parametrize("name", NAMES)
def test_an_extension_changes_outputs_or_the_selection_of_a_prompt(name):
    models = [case.model for case in CASES if case.name == name]
    assert any(m.selection is not None or (logits(m) - AS_TRAINED).abs().max() > 1e-3 for m in models)


@every_case
def test_chunked_prefill_and_decoding_equal_the_whole(case):
    whole = logits(case.model)
    for chunks in CHUNKS:
        assert (logits(case.model, chunks=chunks) - whole).abs().max() < 1e-9


@every_case
@torch.no_grad()
def test_forked_states_continue_like_their_parents(case):
    model, n = case.model, SEQLEN - 5
    _, state = model.hidden(IDS[:, :n], state=model.new_state(2, SEQLEN))
    alone, _ = model.hidden(IDS[:, n:], state=state)
    forked, _ = model.hidden(IDS[:, n:].repeat_interleave(2, 0), state=state.fork(2))
    picked, _ = model.hidden(IDS[1:, n:], state=state.rows(torch.tensor([1])))
    assert (forked - alone.repeat_interleave(2, 0)).abs().max() < 1e-12
    assert (picked - alone[1:]).abs().max() < 1e-12


@every_case
def test_outputs_are_causal_once_the_length_is_declared(case):
    other = IDS.clone()
    other[:, 30:] = (other[:, 30:] + 1) % VOCAB
    assert torch.equal(logits(case.model)[:, :30], logits(case.model, other)[:, :30])


@every_case
def test_lengths_can_be_read_in_any_order(case):
    first = [logits(case.model, IDS[:, :n]) for n in (SEQLEN, 30, 12)]
    again = [logits(case.model, IDS[:, :n]) for n in (12, 30, SEQLEN)]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))


@every_case
def test_weights_keep_their_names_and_values(case):
    ours, theirs = case.model.state_dict(), trained().state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_case
def test_factor_one_changes_no_bit(case, dtype):
    """Left out at a factor of 1; put on, where it takes an open factor, at 1 and at a length inside the training
    length."""
    plain = trained(dtype)
    as_trained, inside = logits(plain), logits(plain, IDS[:, :L])
    assert torch.equal(logits(case.extend(1.0, dtype)), as_trained)
    if not case.takes_open_factor:
        return
    model = trained(dtype)
    case.create().apply(model, ExtensionContext(L, 1.0))
    assert torch.equal(logits(model), as_trained)
    assert torch.equal(logits(model, chunks=[35, 6]), logits(plain, chunks=[35, 6]))
    at_each_length = case.extend(None, dtype)
    assert torch.equal(logits(at_each_length, IDS[:, :L]), inside)
    assert at_each_length.selection is not None or not torch.equal(logits(at_each_length), as_trained)
