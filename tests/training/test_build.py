"""A run's model: with `train.extend` it is the extended model to the bit, in outputs and gradients."""

import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build
from lcprobe.training.build import build_model
from lcprobe.training.config import TrainConfig
from tests.models.contract_cases import classes_in
from tests.models.extend.small_models import IDS, SEQLEN, L, logits, method, model_of
from tests.toys import registered

CLASSES = classes_in(EXTENSIONS)
TRAINABLE = [name for name in CLASSES if CLASSES[name].trainable]
SETTINGS = {"yarn": {"ramp": "rotations"}, "resonance": {"scaling": "pi"}}
every_method = pytest.mark.parametrize("name", TRAINABLE)


def train_config(**given) -> TrainConfig:
    sizes = {"context_length": 2 * L, "tokens": 4 * L, "batch_tokens": 2 * L, "from": "run"}
    with registered():
        config = build(TrainConfig, {**sizes, **given}, "train")
        if config.extend is not None:
            config.extend.resolve()
    return config


def built(extend, model: ModelConfig) -> LanguageModel:
    """The model of a run, with weights by a seed."""
    with registered():
        return build_model(model, train_config(extend=extend)).initialise(3).double()


def planned(name, factor=4.0):
    return {"type": name, **SETTINGS.get(name, {}), "factor": factor, "original_length": L}


def gradients(model: LanguageModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = model.loss(IDS, torch.ones(IDS.shape))[0]
    loss.backward()
    return loss.detach(), {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


def test_the_methods_of_training_are_those_that_change_encodings_alone():
    assert set(TRAINABLE) - {"toy_extension"} == {
        "pi", "ntk", "ntk_by_parts", "llama3", "yarn", "resonance", "drop", "temperature", "logn", "window",
    }  # fmt: skip
    for name in TRAINABLE:
        assert CLASSES[name].causal
        assert CLASSES[name].acts_on in ("rotary", "attention")


@every_method
def test_outputs_and_gradients_are_those_of_the_extended_model_to_the_bit(name):
    config = model_of("[mamba2, attention+mlp] x 2").config
    ours = built(planned(name), config)
    plain = LanguageModel(config).initialise(3).double()
    before, names = plain.state_dict(), [n for n, _ in plain.named_parameters()]
    theirs = extended(plain, method(name, **SETTINGS.get(name, {})), ExtensionContext(L, 4.0))
    assert [n for n, _ in ours.named_parameters()] == names
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
    assert not ours.needs_length, "training declares no length"
    (loss, ours_by_name), (reference, theirs_by_name) = gradients(ours), gradients(theirs)
    assert torch.equal(loss, reference)
    assert set(ours_by_name) == set(theirs_by_name) == set(names)
    assert all(torch.equal(grad, theirs_by_name[key]) for key, grad in ours_by_name.items())
    assert not torch.equal(loss, gradients(built(None, config))[0]), "the extension acts"


@every_method
def test_gradients_flow_through_the_extension(name):
    """Along a random direction, the gradient equals the central difference of the loss."""
    model = built(planned(name), model_of("[mamba2, attention+mlp] x 2").config)
    _, grads = gradients(model)
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    assert all(grad.abs().max() > 0 for key, grad in grads.items() if "mixer" in key)
    generator, eps = torch.Generator().manual_seed(1), 1e-5
    steps = {k: torch.randn(g.shape, generator=generator, dtype=g.dtype) for k, g in grads.items()}
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.add_(steps[key], alpha=sign * eps if sign == 1 else -2 * eps)
            losses.append(float(model.loss(IDS, torch.ones(IDS.shape))[0]))
    slope = sum(float((grads[k] * steps[k]).sum()) for k in grads)
    assert (losses[0] - losses[1]) / (2 * eps) == pytest.approx(slope, rel=1e-5)


def test_without_an_extension_no_bit_changes():
    config = model_of().config
    ours, theirs = built(None, config), LanguageModel(config).initialise(3).double()
    assert torch.equal(logits(ours), logits(theirs))
    assert IDS.shape[1] == SEQLEN


def test_an_extension_that_does_not_apply_is_refused():
    for layout, positional in (("mamba2 x 2", "rope"), ("attention+mlp", "alibi")):
        config = model_of(layout, positional=positional).config if "attention" in layout else model_of(layout).config
        with pytest.raises(ConfigError, match=r"^train\.extend: given 'YaRN'; allowed: a method for this model"):
            built(planned("yarn"), config)


@pytest.mark.parametrize("name", sorted(set(CLASSES) - set(TRAINABLE)))
def test_methods_that_calibrate_or_select_or_read_again_are_refused(name):
    with pytest.raises(ConfigError, match=r"^train\.extend: given '.*'; allowed: drop \| llama3"):
        train_config(extend=name)
