"""Questions from a file over its own paragraphs: the gold one at the asked depth among others, cut to an exact length.

    ... Other paragraph. Gold paragraph with the answer. Other paragraph. ... Question: Who built it? Answer:   -> " Hugo Ashwick"

Two hops (HotpotQA): the gold paragraph without the answer stands at a depth of its own. Only the last of the other paragraphs is
ever cut, at a word. A question is left out when its answer occurs in any other paragraph, or in the question itself, so that
finding the gold paragraph is needed; samples take the questions that are left in one fixed order.

Guesses choose from the answers to other questions about the paragraphs in the context: chance is one in so many.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.files import digest_json
from lcprobe.seeds import Draws, Stream
from lcprobe.tasks.assembly import EMPTY, MAX_CANDIDATES, Built, Haystack, Question, TooShort, assemble, bos_piece, fixed_tokens
from lcprobe.tasks.episode import SUITE, Factors
from lcprobe.tasks.paragraphs import Paragraphs
from lcprobe.tasks.placing import Cut, Needle, in_lines
from lcprobe.tasks.qa_files import Entry, read_entries
from lcprobe.tasks.tokenizer import Tokenizer

CHARS = 1_000_000
"""Paragraphs beyond this much text are left out, and questions that need them: set-up stays below 2 s."""
ASK = " Question: {question} Answer:"


class Asked(NamedTuple):
    """A question that can be asked. gold: numbers of its paragraphs, that with the answer first; value: first token of the answer
    in that one and how many tokens it has there."""

    entry: Entry
    gold: tuple[int, ...]
    value: tuple[int, int]
    ask: np.ndarray
    answer: np.ndarray


class Passages:
    """Episodes over the paragraphs of one file."""

    def __init__(self, source: str, path: str, tokenizer: Tokenizer):
        """Raises ConfigError or DataError for a file that is missing or not of the form, or has no question that can be asked."""
        self._source, self._path, self._tokenizer = source, path, tokenizer
        entries, read = read_entries(source, path)
        self.digest = digest_json([source, read])
        order = Stream("passages", SUITE).permutation(len(entries))
        self._entries, texts = _pool([entries[i] for i in order], tokenizer)
        self._number = {text: i for i, text in enumerate(texts)}
        self._answers: list[dict[str, None]] = [{} for _ in texts]
        """Distinct answers to the questions about each paragraph."""
        for entry in self._entries:
            self._answers[self._number[entry.gold[0]]][entry.answer] = None
        self._n_answers = np.array([len(answers) for answers in self._answers], dtype=np.int64)
        self._found: list[Asked] = []
        self._looked = 0
        if texts:
            self._paragraphs = Paragraphs(source, texts, tokenizer)
        if self._asked(0) is None:
            raise ConfigError("path", path, f"a {source} file with questions whose answers occur in one paragraph alone")

    def build(self, factors: Factors, attempt: int) -> Built:
        """The episode and where its pieces join."""
        control, draw = factors.control, Draws("qa", SUITE, self._source, factors.split, factors.index)
        asked, other = self._pair(factors.index)
        wholes = [self._paragraphs.whole(number) for number in asked.gold]
        needles = [Needle(whole, whole[:0], whole[:0], "") for whole in wholes]
        order = [] if control in ("no_needle", "query_only") else list(range(len(needles)))
        depths = [factors.depth, *draw("depth").uniform(len(needles))[1:].tolist()]
        if control == "zero_distance":
            depths = [3.0 - hop for hop in range(len(needles))]  # past 1: after all the others
        cuts = [Cut(i, depths[i], needles[i]) for i in order]
        shown = other if control == "wrong_key" else asked
        question = Question(
            key=shown.entry.question,
            text=asked.entry.answer,
            ask=shown.ask,
            answer=asked.answer,
            tail=EMPTY,
            evidence=(0, *asked.value),
            others=(),
            chance=1.0,
            via=tuple(range(1, len(needles))),
        )
        before = [bos_piece(self._tokenizer)]
        fixed = fixed_tokens(before, [needles[i].whole for i in order], [question])
        room = 0 if control == "query_only" else factors.length - fixed
        if room < 0:
            raise TooShort(factors.length, fixed, f"question {factors.index} of {self._path} with its paragraphs")
        first = draw("haystack").integer(len(self._number)) + 7 * attempt
        lines, filler = self._paragraphs.fill(first, room, {*asked.gold, *other.gold})
        context = in_lines(self._paragraphs, lines, filler, cuts, 0)
        others, n = self._others(asked, lines)
        question = question._replace(others=others, chance=1.0 / (1 + n))
        start = int(self._paragraphs.starts[lines[0]]) if len(lines) else 0
        return assemble(before, context, [question], Haystack(start, room, room / len(self._paragraphs.stream)))

    def _pair(self, index: int) -> tuple[Asked, Asked]:
        """The sample's question, and the next one about other paragraphs; indices past the last question begin anew."""
        asked = self._asked(index) or self._found[index % len(self._found)]
        for step in range(1, len(self._entries) + 1):
            other = self._asked(index + step) or self._found[(index + step) % len(self._found)]
            if not set(other.gold) & set(asked.gold):
                return asked, other
        raise ConfigError("path", self._path, "a file with questions about two different paragraphs")

    def _asked(self, number: int) -> Asked | None:
        """The question of this number among those that can be asked; None past the last."""
        while len(self._found) <= number and self._looked < len(self._entries):
            asked = self._checked(self._entries[self._looked])
            self._looked += 1
            if asked is not None:
                self._found.append(asked)
        return self._found[number] if number < len(self._found) else None

    def _checked(self, entry: Entry) -> Asked | None:
        """None for a question that looking at the gold paragraph is not needed for, or that the tokenizer changes."""
        tok, gold = self._tokenizer, tuple(self._number[text] for text in entry.gold)
        alone = all(self._paragraphs.stands_alone(number) for number in gold)
        if not alone or not self._paragraphs.only_in(gold[0], entry.answer) or entry.answer in entry.question:
            return None
        try:
            ask, answer = tok.piece(ASK.format(question=entry.question)), tok.piece(" " + entry.answer)
        except EpisodeError:
            return None
        if not tok.same_after_round_trip(np.concatenate([ask, answer])):
            return None
        at = -1
        for _ in range(entry.nth + 1):
            at = entry.gold[0].find(entry.answer, at + 1)
        at = at if at >= 0 else entry.gold[0].find(entry.answer)  # the file counts characters otherwise
        return Asked(entry, gold, self._paragraphs.tokens_of(gold[0], at, len(entry.answer)), ask, answer)

    def _others(self, asked: Asked, lines: np.ndarray) -> tuple[Sequence[np.ndarray], int]:
        """Ids of a few other answers from the paragraphs of the context, and how many there are."""
        n = sum(len(self._answers[i]) for i in asked.gold) - 1 + int(self._n_answers[np.unique(lines)].sum())
        texts: dict[str, None] = {}
        for number in (*asked.gold, *lines[: 4 * MAX_CANDIDATES].tolist()):
            texts |= self._answers[number]
            if len(texts) > MAX_CANDIDATES:
                break
        texts.pop(asked.entry.answer, None)
        return self._tokenizer.pieces([" " + text for text in list(texts)[: MAX_CANDIDATES - 1]]), n


def _pool(entries: list[Entry], tokenizer: Tokenizer) -> tuple[list[Entry], list[str]]:
    """Questions and paragraphs without characters that the tokenizer changes, as many as CHARS allows, in order."""
    lost = tokenizer.lost(
        "".join({c for entry in entries for text in (entry.question, *entry.gold, *entry.others) for c in text})
    )
    texts: dict[str, None] = {}
    kept, size = [], 0
    for entry in entries:
        new = [text for text in (*entry.gold, *entry.others) if text not in texts and not any(c in text for c in lost)]
        n = sum(map(len, new))
        needed = " ".join((entry.question, entry.answer, *entry.gold))
        if any(c in needed for c in lost) or (size and n and size + n > CHARS):
            continue
        texts |= dict.fromkeys(new)
        size += n
        kept.append(entry)
    return kept, list(texts)
