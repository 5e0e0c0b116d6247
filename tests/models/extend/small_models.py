"""Small models that the tests of extensions change, and how they are read."""

import torch

from lcprobe.choices import choose
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import Extension, ExtensionContext, extended
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build
from tests.toys import registered

L, SEQLEN, VOCAB = 16, 41, 32
"""The training length, the length of the sequences that are read, and the number of tokens."""


@torch.no_grad()
def model_of(layout="attention+mlp x 2", dtype=torch.float64, **attention) -> LanguageModel:
    """A model with scores that differ. attention: its settings."""
    mixers = {
        "attention": {"n_heads": 2, "n_kv_heads": 1, "head_dim": 8, **attention},
        "mamba2": {"head_dim": 8, "d_state": 4, "chunk_size": 8},
    }
    sizes = {"layout": layout, "d_model": 16, "d_ff": 16, "vocab_size": VOCAB, "mixers": mixers}
    model = (
        LanguageModel(build(ModelConfig, {**sizes, "initializer_range": 0.5}, "model")).initialise(3).to(dtype).eval()
    )
    for block in model.blocks:
        block.mixer.in_proj.weight *= 3
    return model


def text(n, length, seed):
    """(n, length) token ids."""
    return torch.randint(0, VOCAB, (n, length), generator=torch.Generator().manual_seed(seed))


IDS = text(2, SEQLEN, 5)


def method(name, **settings) -> Extension:
    """An extension by its name."""
    with registered():
        return choose(EXTENSIONS, {"type": name, **settings}, "pe.extend").create()


def changed(name, factor: float | None = 4.0, model: LanguageModel | None = None, **settings) -> LanguageModel:
    """A model under an extension."""
    return extended(model or model_of(), method(name, **settings), ExtensionContext(L, factor, text))


@torch.no_grad()
def logits(model, ids=IDS, chunks=None):
    """Logits of sequences of a declared length, read at once or in chunks of the given lengths."""
    length = ids.shape[1]
    if chunks is None:
        return model.logits(model.hidden(ids, length=length)[0])
    state, parts, lo = model.new_state(len(ids), length), [], 0
    for n in chunks:
        hidden, state = model.hidden(ids[:, lo : lo + n], state=state)
        parts.append(model.logits(hidden))
        lo += n
    assert lo == length
    return torch.cat(parts, dim=1)
