"""Keys that are read at other positions: the distances that occur, and windows over the whole sequence."""

import pytest
import torch

from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.extend.reread import smallest_group
from lcprobe.models.positional.contract import Keys
from lcprobe.models.token_context import TokenContext
from tests.models.extend.small_models import IDS, L, changed, logits, method, model_of


@pytest.mark.parametrize("name", ["self_extend", "leaky_rerope", "dca", "rerope"])
@pytest.mark.parametrize("s", [1.5, 2.0, 3.0, 4.0, 8.0])
@pytest.mark.parametrize("length", [8, 20, 128])
def test_default_settings_keep_all_distances_below_the_training_length(name, s, length):
    """Distances of all visible pairs of a call, by the positions at which its queries and keys are rotated."""
    n = int(s * length)
    model = model_of()
    extended(model, method(name), ExtensionContext(length, s))
    encoding = model.blocks[0].mixer.positional

    def rotated(x, positions, keys, which):
        return positions.double()[None, :, None, None].expand(x.shape[0], -1, x.shape[2], 1)

    encoding.rotated = rotated
    x, places, met = torch.zeros(1, n, 1, 1, dtype=torch.float64), torch.arange(n), torch.zeros(n, n)
    where = TokenContext(places, length=n)
    for call in encoding.calls(x, Keys(x, x, places, where)):
        visible = call.mask.visible(places, places)
        distance = (call.q[0, :, 0, 0][:, None] - call.k[0, :, 0, 0])[visible]
        assert ((distance >= 0) & (distance < length)).all()
        met += visible
    assert torch.equal(met, torch.ones(n, n).tril()), "every pair meets once"


@pytest.mark.parametrize("s", [1.5, 3.0, 4.0])
@pytest.mark.parametrize("length", [8, 128, 512])
def test_the_default_group_is_the_smallest_possible(s, length):
    window = length // 4

    def farthest(g):
        i = torch.arange(int(s * length))
        distance = i[:, None] // g + window - window // g - i // g
        return int(distance[i[:, None] - i >= window].max())

    g = smallest_group(s, length, window)
    assert farthest(g) < length <= farthest(g - 1)


@pytest.mark.parametrize(
    "name", ["self_extend", "rerope", "leaky_rerope", "lm_infinite", "streaming", "window", "dca"]
)
def test_a_window_over_the_whole_sequence_changes_no_bit(name):
    settings = {"dca": {"chunk": L - 1}}.get(name, {"window": L})
    ids = IDS[:, : L - 1]
    assert torch.equal(
        logits(changed(name, model=model_of(dtype=torch.float32), **settings), ids),
        logits(model_of(dtype=torch.float32), ids),
    )
