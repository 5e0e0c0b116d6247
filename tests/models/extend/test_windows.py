"""Windows and sinks of extensions: sizes beyond the training length are refused."""

import pytest

from lcprobe.errors import ConfigError
from lcprobe.models.extend.contract import ExtensionContext
from tests.models.extend.small_models import L, changed, method, model_of


@pytest.mark.parametrize("name", ["lm_infinite", "streaming"])
def test_as_many_sinks_as_the_training_length_are_refused(name):
    assert method(name, sinks=L - 1).not_applicable(model_of(), ExtensionContext(L, 4.0)) is None
    with pytest.raises(ConfigError, match=rf"pe\.extend\.sinks: given {L}; allowed: < {L}"):
        changed(name, sinks=L)
