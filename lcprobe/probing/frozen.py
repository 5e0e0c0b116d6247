"""Frozen prompts through a model: RULER's rule and ours, on the same continuation of the same bytes."""

from dataclasses import dataclass

import numpy as np

from lcprobe.probing.continuing import Continuer
from lcprobe.tasks.frozen import FrozenFile, Prompt, Rule, first_answer, recall_and_precision, substring_score
from lcprobe.tasks.tokenizer import Tokenizer


@dataclass(frozen=True)
class FrozenScore:
    """One prompt. ruler: RULER's substring score, 0 .. 1, of everything said. The rest is ours: any_exact, teacher forced, the
    answer begins with a reference: with any one of them, as no order is asked for, and so a weaker thing than RULER's where
    its rule wants all; log_likelihood of the first reference, nats; recall and precision of the first answer; alone: both
    are 1."""

    line: int
    prompt_tokens: int
    said: str
    first_answer: str
    ruler: float
    any_exact: bool
    log_likelihood: float
    recall: float
    precision: float
    alone: bool


def score_frozen(file: FrozenFile, continuer: Continuer, tokenizer: Tokenizer, tokens: int, rule: Rule) -> list[FrozenScore]:
    """Score every prompt of a file, none of them cut. tokens: greedy ones, fewer where the model ends the document.

    Raises EpisodeError past the model's max_length.
    """
    prompts = [with_begin(tokenizer, prompt.text) for prompt in file.prompts]
    ended = [tokenizer.bos_id]
    said = continuer.greedy(prompts, [tokens] * len(prompts), lambda _, ids: ids[-1] in ended)
    pairs = [_answer(tokenizer, prompt, output) for prompt in file.prompts for output in prompt.outputs]
    forced = iter(continuer.likelihoods(pairs))
    scores = []
    for prompt, ids, made in zip(file.prompts, prompts, said, strict=True):
        text = tokenizer.decode(np.array([i for i in made if i not in ended], dtype=np.int64))
        answers = [next(forced) for _ in prompt.outputs]
        recall, precision = recall_and_precision(text, prompt.outputs, rule)
        scores.append(
            FrozenScore(
                line=prompt.line,
                prompt_tokens=len(ids),
                said=text,
                first_answer=first_answer(text),
                ruler=substring_score(text, prompt.outputs, rule),
                any_exact=any(bool(right.all()) for _, right in answers),
                log_likelihood=float(answers[0][0].sum()),
                recall=recall,
                precision=precision,
                alone=recall == precision == 1,
            )
        )
    return scores


def with_begin(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text after the begin token, where there is one; a text that brings its own gets no second."""
    ids = tokenizer.encode(text).tolist()
    return ids if tokenizer.bos_id is None or ids[:1] == [tokenizer.bos_id] else [tokenizer.bos_id, *ids]


def _answer(tokenizer: Tokenizer, prompt: Prompt, output: str) -> tuple[list[int], list[int]]:
    """Prompt and answer as one text, parted where their tokens leave the prompt's own: a last space goes to the answer."""
    text, gap = prompt.text, "" if prompt.text[-1].isspace() else " "
    whole, alone = with_begin(tokenizer, text + gap + output), with_begin(tokenizer, text)
    same = next((i for i, (a, b) in enumerate(zip(whole, alone, strict=False)) if a != b), min(len(whole), len(alone)))
    return whole[:same], whole[same:]
