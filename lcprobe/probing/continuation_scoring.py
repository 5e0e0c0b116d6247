"""Scoring with what gives continuations but no states: a server, or a model in a `Continuer`.

The scores are those of `scoring.ModelScorer` on the same model, question by question; only `read_tokens` is unknown.
"""

import numpy as np

from lcprobe.probing.engines.contract import Continuations
from lcprobe.probing.scoring import Item, Score, printed_text, score_answer
from lcprobe.tasks.text.tokenizer import Tokenizer


class ContinuationScorer:
    """Scores with continuations: teacher forced, or by greedy decoding. A Scorer."""

    def __init__(self, continuations: Continuations, tokenizer: Tokenizer, generate: bool = False):
        self.continuations, self.tokenizer, self.generate = continuations, tokenizer, generate

    def score(self, items: list[Item]) -> list[Score]:
        """items: questions with prompts of any lengths. Every candidate is scored as a continuation of its prompt;
        what is printed is asked for where the answer is not the argmax, where the item wants a continuation, and of
        all with `generate`.
        """
        pairs = [(item.prompt, choice) for item in items for choice in item.query.candidates]
        found = iter(self.continuations.likelihoods(pairs))
        choices = [[next(found) for _ in item.query.candidates] for item in items]  # the true answer comes first
        exact = [bool(of[0][1].all()) for of in choices]
        missed = {i for i in range(len(items)) if self.generate or not exact[i]}
        more = [self._continuation_tokens(item) for item in items]
        steps = {i: max(more[i], len(items[i].answer) if i in missed else 0) for i in range(len(items))}
        decoded = [i for i, n in steps.items() if n]
        texts = self.continuations.greedy(
            [items[i].prompt for i in decoded], [steps[i] for i in decoded], lambda *_: False
        )
        greedy = {i: np.asarray(ids, dtype=np.int64) for i, ids in zip(decoded, texts, strict=True)}
        scores = []
        for i, item in enumerate(items):
            printed = greedy[i][: len(item.answer)] if i in missed else item.answer
            hit = bool(np.array_equal(printed, item.answer)) if self.generate else exact[i]
            tokens = [likelihood for likelihood, _ in choices[i]]
            text = printed_text(greedy[i][: more[i]], self.tokenizer) if more[i] else None
            scores.append(score_answer(item, printed, choices[i][0][1], tokens, hit, self.tokenizer, text))
        return scores

    def _continuation_tokens(self, item: Item) -> int:
        """Greedy tokens that an item asks for, as far as the model's positions go."""
        if item.continuation is None:
            return 0
        end = self.continuations.max_length
        return item.continuation.tokens if end is None else min(item.continuation.tokens, end - len(item.prompt))
