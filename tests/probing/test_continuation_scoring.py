"""A scorer over continuations gives the scores of the scorer over states, on every sample."""

from dataclasses import replace

import numpy as np
import pytest

from lcprobe.probing.continuation_scoring import ContinuationScorer
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.probing.scoring import ModelScorer
from lcprobe.probing.substring import Continuation
from tests.probing.test_scoring import items_of


@pytest.mark.parametrize("generate", [False, True])
def test_scores_are_those_of_the_model_scorer(trained, tasks, generate):
    items = [item for task in ("single", "multikey", "twice") for item in items_of(tasks, task, 30)]
    tokenizer = tasks.materials.tokenizer
    want = ModelScorer(trained, tokenizer, "cpu", 64, generate).score(items)
    scored = ContinuationScorer(Continuer(trained, "cpu", 64, 4096), tokenizer, generate).score(items)
    for a, b in zip(want, scored, strict=True):
        assert b.log_likelihood == pytest.approx(a.log_likelihood, abs=2e-4)
        assert replace(b, log_likelihood=0.0) == replace(a, log_likelihood=0.0, read_tokens=None)
    assert 0 < np.mean([s.exact for s in want]) < 1, "the comparison needs hits and misses"
    assert any(s.distractor_hit for s in want)


def test_greedy_text_is_scored_too(trained, tasks):
    items = [
        replace(item, continuation=Continuation(3 + i % 9, (tasks.materials.tokenizer.decode(item.answer).strip(),)))
        for i, item in enumerate(items_of(tasks, "multikey", 40))
    ]
    tokenizer = tasks.materials.tokenizer
    want = ModelScorer(trained, tokenizer, "cpu", 64).score(items)
    scored = ContinuationScorer(Continuer(trained, "cpu", 64, 4096), tokenizer).score(items)
    assert [(s.continuation, s.substring) for s in scored] == [(s.continuation, s.substring) for s in want]
    assert 0 < np.mean([s.substring for s in want]) < 1
