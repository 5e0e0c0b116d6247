"""The contract of probed models: three methods are required, everything else has a default that may be replaced."""

import pytest
import torch
from torch import nn

from lcprobe.probing.engines.contract import ProbedModel


class ThreeMethods(ProbedModel):
    def new_state(self, batch, length=None): ...

    def hidden(self, tokens, *, state): ...

    def logits(self, hidden): ...


@pytest.mark.parametrize("method", ["new_state", "hidden", "logits"])
def test_a_model_without_one_of_the_three_methods_cannot_be_made(method):
    methods = {name: vars(ThreeMethods)[name] for name in ("new_state", "hidden", "logits") if name != method}
    with pytest.raises(TypeError, match=method):
        type("Lacking", (ProbedModel,), methods)()


def test_the_rest_has_defaults_that_a_property_or_a_class_attribute_replaces():
    class Declaring(ThreeMethods):
        needs_length = True

        @property
        def max_length(self):
            return 7

    plain, declaring = ThreeMethods(), Declaring()
    assert (plain.needs_length, plain.max_length, plain.selection) == (False, None, None)
    assert (declaring.needs_length, declaring.max_length, declaring.selection) == (True, 7, None)


def test_a_torch_module_can_be_a_probed_model():
    class Module(nn.Module, ThreeMethods):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

    module = Module()
    assert [name for name, _ in module.named_parameters()] == ["weight"]
    assert module.max_length is None
