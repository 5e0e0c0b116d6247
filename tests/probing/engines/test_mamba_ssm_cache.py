"""compat.mamba_ssm_conv_bug: decoding is that of mamba_ssm's own cache, step by step, and nothing else changes."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lcprobe.config import parse
from lcprobe.errors import ConfigError
from lcprobe.files import write_json
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.probing.config import CompatConfig, Grid
from lcprobe.probing.engines.mamba_ssm_cache import MambaSsmCache
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.probing.runner import ProbedCheckpoint
from lcprobe.probing.scoring import Item, ModelScorer
from lcprobe.schema import build
from lcprobe.studies.evaluation.sources import TrainedCheckpoint
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.evaluation.variants import variants_of
from lcprobe.training.checkpoint import Progress

VOCAB, HEADS, HEAD_DIM, WIDTH = 4096, 2, 8, 4
BUG = CompatConfig(mamba_ssm_conv_bug=True)


def one_layer(d_conv=WIDTH):
    sizes = {
        "layout": "attention",
        "d_model": 16,
        "vocab_size": VOCAB,
        "initializer_range": 0.5,
        "tie_embeddings": False,
    }
    mixers = {"attention": {"head_dim": HEAD_DIM, "n_heads": HEADS, "d_conv": d_conv}}
    model = LanguageModel(build(ModelConfig, {**sizes, "mixers": mixers}, "model")).initialise(3).double().eval()
    mixer = model.blocks[0].mixer
    for weight, factor in ((model.head.weight, 30), (mixer.out_proj.weight, 5), (mixer.in_proj.weight, 3)):
        weight.data *= factor  # so that texts depend on what is attended to
    return model


class MambaSsmLayer:
    """mamba_ssm/modules/mha.py with rotary embeddings, from its source: one row, cache updates as there."""

    def __init__(self, model):
        self.model, self.mixer = model, model.blocks[0].mixer
        self.k, self.v = [], []

    def prefill(self, tokens):
        x = self.model.embedding(tokens)
        qkv = self.mixer.in_proj(self.model.blocks[0].norm(x))
        weight, n = self.mixer.conv_weight, len(tokens)
        qkv = F.conv1d(qkv.T, weight[:, None], self.mixer.conv_bias, padding=WIDTH - 1, groups=len(weight))[:, :n].T
        self.conv_state = F.pad(qkv.T, (WIDTH - n, 0))  # post-convolution: the fault
        return [self.attend(x[i], row) for i, row in enumerate(qkv)][-1]

    def step(self, token):
        x = self.model.embedding(token)
        self.conv_state = torch.roll(self.conv_state, -1, -1)
        self.conv_state[:, -1] = self.mixer.in_proj(self.model.blocks[0].norm(x))
        return self.attend(x, (self.conv_state * self.mixer.conv_weight).sum(-1) + self.mixer.conv_bias)

    def attend(self, x, qkv):
        q, k, v = qkv.view(3, HEADS, HEAD_DIM)
        angle = len(self.k) * 10000.0 ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
        turn = torch.polar(torch.ones_like(angle), angle)
        q, k = (torch.complex(*t.chunk(2, -1)) * turn for t in (q, k))
        self.k.append(k), self.v.append(v)
        scores = torch.einsum("hd,nhd->hn", q, torch.stack(self.k).conj()).real / math.sqrt(HEAD_DIM)
        y = torch.einsum("hn,nhd->hd", scores.softmax(-1), torch.stack(self.v))
        return self.model.norm(x + self.mixer.out_proj(y.flatten()))


def reference(model, prompt, answer):
    """Hidden vectors from the prompt's last token to the answer's."""
    layer = MambaSsmLayer(model)
    return torch.stack([layer.prefill(prompt), *(layer.step(token) for token in answer)])


@torch.inference_mode()
def decoded(model, prompt, answer, chunk, step):
    state = model.new_state(1)
    for part in prompt[None].split(chunk, 1):
        hidden, state = model.hidden(part, state=state)
    parts, state = [hidden[:, -1:]], model.prompt_ended(state)
    for part in answer[None].split(step, 1):
        hidden, state = model.hidden(part, state=state)
        parts.append(hidden)
    return torch.cat(parts, 1)[0]


def ids(n, seed=0):
    return torch.randint(VOCAB, (n,), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 2, 3, 4, 23])
def test_decoding_is_that_of_mamba_ssm(n):
    model = one_layer()
    prompt, answer = ids(n), ids(9, 1)
    want, faulty = reference(model, prompt, answer), MambaSsmCache(model)
    for chunk, step in ((n, 1), (n, 9), (1, 4), (2, 9), (5, 1)):
        assert (decoded(faulty, prompt, answer, chunk, step) - want).abs().max() < 1e-12
    right = decoded(model, prompt, answer, 5, 4)
    assert (right - model.hidden(torch.cat([prompt, answer])[None])[0][0, n - 1 :]).abs().max() < 1e-12
    assert torch.allclose(right[0], want[0], rtol=0, atol=1e-12)
    assert ((right - want)[1:].abs().amax(-1) > 1e-3).all()  # the wrong keys and values stay


@torch.no_grad()
def test_scores_and_greedy_text_are_those_of_single_steps(tasks, materials):
    """Whatever the chunks are in which prompts are read, and the rows that are read together."""
    model = one_layer()
    unit = tasks.plan(
        [Grid(tasks=["twice"], lengths=build(Grid, {"lengths": ["96t"]}, "g").lengths, depths=1, n=3)]
    ).units[0]
    items = [Item(episode, query) for episode in tasks.episodes(unit)[:3] for query in episode.queries]
    faulty = MambaSsmCache(model)
    want = []
    for item in items:
        answer = torch.from_numpy(item.answer.astype(np.int64))
        hidden = reference(model, torch.from_numpy(item.prompt.astype(np.int64)), answer[:-1])
        want.append(float(model.logits(hidden).log_softmax(-1).gather(1, answer[:, None]).sum()))
    for chunk, generate in ((7, False), (64, True)):
        scores = ModelScorer(faulty, materials.tokenizer, "cpu", chunk, generate).score(items)
        assert [score.log_likelihood for score in scores] == pytest.approx(want, abs=1e-5)
    scores = ModelScorer(model, materials.tokenizer, "cpu", 64).score(items)
    assert all(abs(score.log_likelihood - other) > 1e-4 for score, other in zip(scores, want, strict=True))

    prompts, steps = [item.prompt for item in items], 12
    texts = Continuer(faulty, "cpu", 16, 4096).greedy(prompts, [steps] * len(items), lambda *_: False)
    for prompt, text in zip(prompts, texts, strict=True):
        hidden = reference(model, torch.from_numpy(prompt.astype(np.int64)), torch.tensor(text[:-1]))
        assert model.logits(hidden).argmax(-1).tolist() == text
    assert texts != Continuer(model, "cpu", 16, 4096).greedy(prompts, [steps] * len(items), lambda *_: False)


def test_without_a_convolution_nothing_changes_and_it_is_refused(tmp_path):
    model, prompt, answer = one_layer(d_conv=0), ids(20), ids(6, 1)
    assert torch.equal(decoded(MambaSsmCache(model), prompt, answer, 7, 6), decoded(model, prompt, answer, 7, 6))

    def target(name, d_conv):
        write_json(tmp_path / name / "state.json", asdict(Progress()))
        mixers = {"attention": {"head_dim": 8, "d_conv": d_conv}}
        config = parse({"model": {"layout": "attention", "d_model": 16, "vocab_size": 64, "mixers": mixers}})
        return ProbeTarget(name, TrainedCheckpoint(tmp_path / name, None), config)

    plain, convolved = target("plain", 0), target("convolved", 4)
    with pytest.raises(ConfigError) as error:
        variants_of([plain], parse({}).pe, BUG)
    assert str(error.value) == (
        "compat.mamba_ssm_conv_bug: given True; allowed: false where no model has attention layers with a convolution "
        "(d_conv)"
    )
    variants, notes = variants_of([plain, convolved], parse({}).pe, BUG)
    assert [variant.compat for variant in variants] == [CompatConfig(), BUG]
    assert notes == ["mamba_ssm_conv_bug on plain: no attention layer with a convolution"]


def test_records_with_it_are_never_read_for_the_model_without_it():
    subject = ProbedCheckpoint("m", "0" * 16, 1, 2)
    assert "mamba_ssm_conv_bug" not in subject.facts
    assert replace(subject, compat=BUG).facts == {**subject.facts, "mamba_ssm_conv_bug": "true"}
