"""Scoring with what gives continuations but no states: a server, or a model in a `Continuer`.

The scores are those of `scoring.ModelScorer` on the same model, question by question; only `read_tokens` is unknown.
"""

import numpy as np

from lcprobe.probing.engines.contract import Continuations
from lcprobe.probing.scoring import Item, Score, score_answer
from lcprobe.tasks.text.tokenizer import Tokenizer


class ContinuationScorer:
    """Scores with continuations: teacher forced, or by greedy decoding. A Scorer."""

    def __init__(self, continuations: Continuations, tokenizer: Tokenizer, generate: bool = False):
        self.continuations, self.tokenizer, self.generate = continuations, tokenizer, generate

    def score(self, items: list[Item]) -> list[Score]:
        """items: questions with prompts of any lengths. Every candidate is scored as a continuation of its prompt;
        what is printed is asked for where the answer is not the argmax, or of all with `generate`.
        """
        pairs = [(item.prompt, choice) for item in items for choice in item.query.candidates]
        found = iter(self.continuations.likelihoods(pairs))
        choices = [[next(found) for _ in item.query.candidates] for item in items]  # the true answer comes first
        exact = [bool(of[0][1].all()) for of in choices]
        missed = [i for i in range(len(items)) if self.generate or not exact[i]]
        decoded = self.continuations.greedy(
            [items[i].prompt for i in missed], [len(items[i].answer) for i in missed], lambda *_: False
        )
        greedy = dict(zip(missed, decoded, strict=True))
        scores = []
        for i, item in enumerate(items):
            printed = np.asarray(greedy[i], dtype=np.int64) if i in greedy else item.answer
            hit = bool(np.array_equal(printed, item.answer)) if self.generate else exact[i]
            tokens = [likelihood for likelihood, _ in choices[i]]
            scores.append(score_answer(item, printed, choices[i][0][1], tokens, hit, self.tokenizer))
        return scores
