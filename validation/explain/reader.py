"""A reader of known habits, which answers from the text of a prompt: what changes its score is known beforehand.

It looks for the value of the key that is asked for last, in the wording of our tasks or of lm-eval's. It knows it
with a probability that falls with the distance between value and question, that is lower in prompts of more than
LONGEST of its tokens, without a begin token where the value is not NEAR, inside a chat, after an instruction, where
the question is not the end, and in a haystack that is not RULER's noise, and higher in lm-eval's wording. Draws
depend on key and value alone: it knows the same facts whatever is around them. Of what it knows, it writes the value
at once, alone, after some words, in a second line, or as a longer number, by another draw.
"""

import re
from collections.abc import Sequence

import numpy as np

from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import Tokenizer

REACH, BEST = 300.0, 0.95
LONGEST, PAST_LONGEST = 560, 0.45
NEAR, NO_BEGIN = 200, 0.15
IN_TURN, IN_OTHER_TEXT = 0.4, 0.02
AROUND = {
    "<|im_start|>": 0.65,
    "[INST]": 0.85,
    "### ": 0.2,
    "User:": 0.92,
    "Read the following text": 0.76,
    "A special magic value": 0.9,
    "Question: what is": 0.3,
    "special magic number": 4.5,
}
"""Factors of the probability, by what is in the prompt."""
FACTS = (
    re.compile(r"secret value for ([\w-]+) is (\d+)\."),
    re.compile(r"special magic numbers? for ([\w-]+) is: (\d+)\."),
)
ASKED = re.compile(r"(?:secret value|special magic number) for ([\w-]+) (?:mentioned in the provided text )?is\b")
HABITS = (
    (0.43, " {value}. And so on, as it was said before.\nNothing more is known about it."),
    (0.55, " {value}"),
    (0.72, " known to be {value}. And so on.\nNothing more is known about it."),
    (0.90, " not written here.\n{value} is what the text says, and nothing more is known."),
    (1.01, " {value}0 as it seems.\nNothing more is known about it."),
)
"""Upper ends of the draw, and what it writes."""
UNKNOWN = " not known. Nothing more is known about it.\nNothing more."


class PlantedReader:
    """Continues prompts; see the module. seed: of its draws."""

    def __init__(self, tokenizer: Tokenizer, seed: int = 0):
        self.tokenizer, self.seed = tokenizer, seed

    def __call__(self, prompts: Sequence[Sequence[int]], steps: Sequence[int]) -> list[list[int]]:
        """The first tokens of what it writes after each prompt."""
        return [self._writes(list(prompt))[:n] for prompt, n in zip(prompts, steps, strict=True)]

    def _writes(self, prompt: list[int]) -> list[int]:
        begins = 0
        while begins < len(prompt) and prompt[begins] == self.tokenizer.bos_id:
            begins += 1
        text = self.tokenizer.decode(np.array(prompt[begins:]))
        known = self._knows(text, begins, len(prompt))
        if known is None:
            return self.tokenizer.encode(UNKNOWN).tolist()
        draw = self._draw("habit", known)
        written = next(text for end, text in HABITS if draw < end).format(value=known)
        ids = self.tokenizer.encode(written).tolist()
        ends = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        return ids + ends * (written == f" {known}")  # the document ends after a value alone

    def _knows(self, text: str, begins: int, tokens: int) -> str | None:
        """The value that it finds; None where it finds none."""
        asked = list(ASKED.finditer(text))
        facts = {m.group(1): m for pattern in FACTS for m in pattern.finditer(text)}
        if not asked or asked[-1].group(1) not in facts:
            return None
        fact, question = facts[asked[-1].group(1)], asked[-1]
        distance = tokens * (question.start() - fact.end()) / len(text)
        p = BEST * 2.0 ** -((max(0.0, distance) / REACH) ** 2)
        p *= NO_BEGIN if begins == 0 and distance > NEAR else 1.0
        p *= PAST_LONGEST if tokens > LONGEST else 1.0
        p *= 1.0 if question.end() >= len(text.rstrip()) else IN_TURN
        p *= 1.0 if "The grass is green" in text else IN_OTHER_TEXT
        for words, factor in AROUND.items():
            p *= factor if words in text else 1.0
        return fact.group(2) if self._draw("knows", *fact.groups()) < p else None

    def _draw(self, *names: str) -> float:
        return float(Stream("planted reader", self.seed, *names).uniform(1)[0])
