"""The layers that an extension changes, and the reasons for which it is not applicable."""

import pytest

from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build
from tests.models.extend.small_models import VOCAB, L, method, model_of


def test_layers_with_a_window_within_the_training_length_are_unchanged():
    sizes = {"layout": "local+mlp, attention+mlp", "d_model": 16, "d_ff": 16, "vocab_size": VOCAB,
             "mixers": {"local": {"type": "attention", "head_dim": 8, "window": 9}, "attention": {"head_dim": 8}}}  # fmt: skip
    for name in ("yarn", "self_extend", "streaming"):
        model = LanguageModel(build(ModelConfig, sizes, "model")).initialise(1)
        local, far = (mixer.encoding for mixer in model.mixers())
        extended(model, method(name), ExtensionContext(L, 4.0))
        assert model.blocks[0].mixer.positional is local
        assert local.scaling is None
        assert model.blocks[1].mixer.positional is not far or far.scaling is not None


@pytest.mark.parametrize(
    ("name", "layout", "attention", "reason"),
    [
        ("yarn", "mamba2 x 2", {}, "no rotary layer"),
        ("window", "mamba2 x 2", {}, "no attention"),
        ("pi", "attention+mlp", {"positional": {"type": "none"}}, "no rotary layer"),
        ("self_extend", "attention+mlp", {"window": 40}, "cannot be read at other positions"),
        ("dca", "attention+mlp", {"window": 9}, "inside the training length"),
        ("ntk", "attention+mlp", {"head_dim": 2}, "fewer than 2 pairs"),
        ("window", "attention+mlp", {"window": 9}, "no wider already"),
    ],
)
def test_an_extension_that_is_not_applicable_gives_the_reason(name, layout, attention, reason):
    model = model_of(layout, **attention)
    assert reason in (method(name).not_applicable(model, ExtensionContext(L, 4.0)) or "fits")
    with pytest.raises(ConfigError, match=reason):
        extended(model, method(name), ExtensionContext(L, 4.0))
