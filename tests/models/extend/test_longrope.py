"""The search for LongRoPE's factors."""

import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.extend.longrope import LongRoPE, initial_factors, loss_beyond
from tests.models.extend.small_models import L, changed, method, model_of, text


def test_a_search_is_reproducible_and_improves_on_its_initial_candidates():
    def loss(**settings):
        model = changed("longrope", 4.0, **settings)
        with torch.no_grad():
            return loss_beyond(model, text(1, 4 * L, 1), L), model.blocks[0].mixer.positional.scaling.config.long

    best, factors = loss(budget=12, n=1, seed=1)
    assert loss(budget=12, n=1, seed=1) == (best, factors)
    assert list(factors) == sorted(factors)
    assert min(factors) >= 1
    assert max(factors) <= 1.25 * 4
    theta = model_of().blocks[0].mixer.positional.frequencies(torch.device("cpu"))
    tried = [loss(long=start.tolist(), seed=1)[0] for start in initial_factors(theta, 4.0, L)]
    assert best < min(tried)
    with pytest.raises(ConfigError, match="no training text"):
        extended(model_of(), method("longrope", budget=6, n=1), ExtensionContext(L, 4.0))
    assert LongRoPE.causal is False
