"""Frequent words: a shuffled list whose words follow a ladder of frequencies, and its first ranks to be named in order.

Source: Hsieh et al. 2024, RULER, arXiv 2404.06654 (fwe: name the three most frequent words, by recall, of draws from a zeta
distribution over a vocabulary that grows with length; the word of rank one is replaced by dots). Differs: the ladder is
exact, not drawn, and the same at every length; words of neighbouring ranks differ by the factor `ratio`; ranks are asked one
after the other; and every sample has a layout of its own (RULER has four, and "list the last ten words" scores 100).

    List: falcon acorn falcon ... . In this list, the most frequent is  -> " falcon"   ; the second is  -> " acorn"

With top 3, ratio 2, others 20 the words occur 8 : 4 : 2 : 1 : 1 ... times. Chance is the share that the asked word has among
the occurrences of words not yet named (8/34, 4/26, 2/22): the score of naming the word at any place of the list, the first,
the last or a random one; naming a random word of those in the list scores less. Naming the most frequent word is the task.
A failure means that counts are not kept or not compared; as the list is shuffled, a window of w words sees w words' worth.
"""

from dataclasses import dataclass, replace

from lcprobe.errors import require
from lcprobe.seeds import Draws
from lcprobe.tasks.assembly import EMPTY, Axes, Built, Question, certify, least_length
from lcprobe.tasks.counting import CLOSING, CONTROLS, OPENING, Words, counted
from lcprobe.tasks.episode import SUITE, Episode, Factors
from lcprobe.tasks.haystack import Materials
from lcprobe.tasks.names import KINDS, NOTHING

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


class FWE:
    """The generator: `episode(factors)` is a pure function of the config, the materials and the factors."""

    Config = FWEConfig
    axes = Axes(haystack=(NOTHING,), key=(NOTHING,), value=KINDS, controls=CONTROLS, depth=False)
    needs_lookup = True
    solved_by = ("most_frequent",)
    """Policies of the cheating battery that do just what is asked: no cheat here."""

    def __init__(self, config: FWEConfig, materials: Materials):
        self.config, self.materials = config, materials
        self._words: dict[str, Words] = {}

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens (query_only: as long as its questions and answers).

        Raises EpisodeError for a length that is too short (naming the least) and for formats with too few strings.
        """
        self.axes.check(factors)
        return certify(lambda attempt: self._build(factors, attempt), factors, self.materials.tokenizer)

    def shortest(self, factors: Factors) -> int:
        """The least length at which this sample exists. Raises EpisodeError for impossible formats."""
        self.axes.check(factors)
        return least_length(lambda: self._build(replace(factors, length=1), 0))

    def _build(self, factors: Factors, attempt: int) -> Built:
        cfg, tok, kind = self.config, self.materials.tokenizer, factors.formats.value
        if kind not in self._words:
            self._words[kind] = Words(tok, kind, "value", WORDING, "fwe", SUITE)
        words, draw = self._words[kind], Draws("fwe", SUITE, factors.split, factors.index)
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
