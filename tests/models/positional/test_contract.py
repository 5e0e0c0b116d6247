"""What positional encodings say of themselves in class attributes, for all that is registered and for the toys."""

from dataclasses import replace

import pytest
import torch

from lcprobe.models.positional import POSITIONAL
from tests.models.contract_cases import CASES, ENCODINGS
from validation.invariances.checks import SEQLEN, VOCAB

ENCODED = [case for case in CASES if case.registry is POSITIONAL]
RELATIVE = [case for case in ENCODED if ENCODINGS[case.name].relative and not case.has_temperature]
TOKENS = torch.randint(0, VOCAB, (2, SEQLEN), generator=torch.Generator().manual_seed(7))


def encodings_of(case):
    return [e for e in (case.model.positional, *(mixer.encoding for mixer in case.model.mixers())) if e is not None]


@torch.no_grad()
@pytest.mark.parametrize("case", RELATIVE, ids=str)
def test_relative_encodings_read_differences_of_positions_alone(case):
    model = case.model
    near, _ = model.hidden(TOKENS)
    far, _ = model.hidden(TOKENS, state=replace(model.new_state(2), position=10**6))
    assert (near - far).abs().max() < 1e-7


@pytest.mark.parametrize("case", ENCODED, ids=str)
def test_parameters_of_encodings_are_counted_and_get_initial_values_of_their_own(case):
    for encoding in encodings_of(case):
        assert type(encoding).params(encoding.config, encoding.shape) == sum(p.numel() for p in encoding.parameters())
        for name, p in encoding.named_parameters(recurse=False):
            first, second = (torch.full(p.shape, torch.nan, dtype=torch.float64) for _ in range(2))
            for value in (first, second):
                encoding.init_parameter(name, value, torch.Generator().manual_seed(3))
            assert torch.equal(first, second)
