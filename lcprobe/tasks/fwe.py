"""Frequent words: a shuffled list whose words follow a ladder of frequencies, and its first ranks to be named in order.

Source: Hsieh et al. 2024, RULER, arXiv 2404.06654 (fwe: name the three most frequent words, by recall, of draws from a zeta
distribution over a vocabulary that grows with length; the word of rank one is replaced by dots). Differs: the ladder is
exact, not drawn, and the same at every length; words of neighbouring ranks differ by the factor `ratio`; ranks are asked one
after the other; and every sample has a layout of its own (RULER has four, and "list the last ten words" scores 100).

    List: falcon acorn falcon ... . In this list, the most frequent is  -> " falcon"   ; the second is  -> " acorn"

With top 3, ratio 2, others 20 the words occur 8 : 4 : 2 : 1 : 1 ... times. Chance is the share that the asked word has among
the occurrences of words not yet named (8/34, 4/26, 2/22): the score of naming the word at any place of the list, the first,
the last or a random one; naming a random word of those in the list scores less. Naming the most frequent word is the task.
A failure means that counts are not kept or not compared. It is no test of length: every stretch of the list has the same shares,
as in RULER's, so the exact counts of its last 50 / 200 / 1000 words alone give .55 / .87 / 1.00 at 32K. Shares that changed along
the list would mend that, and tell the place at which to look.
"""

from dataclasses import dataclass

from lcprobe.errors import require
from lcprobe.seeds import Draws
from lcprobe.tasks.assembly import EMPTY, Axes, Built, Question
from lcprobe.tasks.episode import SUITE, Factors
from lcprobe.tasks.names import KINDS, NOTHING
from lcprobe.tasks.parts.word_lists import CLOSING, CONTROLS, OPENING, Counting, counted

RANKS = ("most frequent", "second", "third", "fourth", "fifth")
ASK, TAIL = " the {rank} is", ";"
WORDING = OPENING + CLOSING + ASK + " ".join(RANKS)


@dataclass(frozen=True)
class FWEConfig:
    """Frequent words. The format of the words (value) and the length are factors of the grid."""

    top: int = 3
    """Ranks asked for, the most frequent word first."""
    ratio: int = 2
    """How many times as often as the next a word of these ranks occurs."""
    others: int = 20
    """Words below the ladder, all equally rare."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts out of range."""
        require(f"{at}.top", self.top, 1 <= self.top <= len(RANKS), f"1 .. {len(RANKS)}")
        require(f"{at}.ratio", self.ratio, 2 <= self.ratio <= 10, "2 .. 10")
        require(f"{at}.others", self.others, 1 <= self.others <= 1000, "1 .. 1000")

    @property
    def ladder(self) -> list[int]:
        """Occurrences of each word in a pass."""
        return [self.ratio ** (self.top - rank) for rank in range(self.top)] + [1] * self.others


class FWE(Counting):
    """The generator: `episode(factors)` is a pure function of the config, the materials and the factors."""

    Config = FWEConfig
    config: FWEConfig
    axes = Axes(haystack=(NOTHING,), key=(NOTHING,), value=KINDS, controls=CONTROLS, depth=False)
    role = "value"
    wording = WORDING
    solved_by = ("most_frequent", "most_frequent_of_last_n")
    """Policies of the cheating battery that do just what is asked, on all of the list or on its end: no cheat here."""

    def _build(self, factors: Factors, attempt: int) -> Built:
        cfg, tok, kind = self.config, self.materials.tokenizer, factors.formats.value
        words, draw = self.words(kind), Draws("fwe", SUITE, factors.split, factors.index)
        rates = cfg.ladder
        chosen = words.chosen(len(rates), draw("words", kind))
        if factors.control == "no_needle":
            rates = [1] * len(rates)
        questions = []
        for rank in range(cfg.top):
            tail = tok.piece(TAIL) if rank < cfg.top - 1 else EMPTY
            others = [words.ids[i] for i in chosen[rank + 1 :]]
            answer, text = words.ids[chosen[rank]], words.strings[chosen[rank]]
            ask, chance = tok.piece(ASK.format(rank=RANKS[rank])), rates[rank] / sum(rates[rank:])
            questions.append(Question(RANKS[rank], text, ask, answer, tail, None, others, chance))
        return counted(self.materials, factors, draw, attempt, words, chosen, rates, questions)
