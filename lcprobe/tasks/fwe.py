"""Frequent words: a shuffled list whose words follow a ladder of frequencies; the questions ask for its first ranks
in order.

Source: Hsieh et al. 2024, RULER, arXiv 2404.06654 (fwe: name the three most frequent words, by recall, of draws from
a zeta distribution over a vocabulary that grows with length; the word of rank one is replaced by dots). Differs: the
ladder is exact, not drawn, and the same at every length; words of neighbouring ranks differ by the factor `ratio`;
ranks are queried one after the other; and every sample has a different layout (RULER has four, and "list the last ten
words" scores 100).

    List: falcon acorn falcon ... . In this list, the most frequent is  -> " falcon"   ; the second is  -> " acorn"

With top 3, ratio 2, others 20 the words occur 8 : 4 : 2 : 1 : 1 ... times. Chance is the share that the target word
has among the occurrences of words not yet named (8/34, 4/26, 2/22): the score of naming the word at any place of the
list, the first, the last or a random one; naming a random word of those in the list scores less. Naming the most
frequent word is the task. A failure means that counts are not kept or not compared. It is no test of length: every
stretch of the list has the same shares, as in RULER's, so the exact counts of its last 50 / 200 / 1000 words alone
give .55 / .87 / 1.00 at 32K. Shares that changed along the list would mend that, and reveal the place at which to
look.
"""

from dataclasses import dataclass

from lcprobe.errors import require
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.parts.layout import EMPTY, Layout, Question, Sample
from lcprobe.tasks.parts.word_lists import CLOSING, LIST_CONTROLS, OPENING, list_layout, words_of

RANKS = ("most frequent", "second", "third", "fourth", "fifth")
ASK_RANK, TAIL = " the {rank} is", ";"
FWE_WORDING = OPENING + CLOSING + ASK_RANK + " ".join(RANKS)


@dataclass(frozen=True)
class FWEConfig:
    """Frequent words. The format of the words (value) and the length are factors of the grid."""

    top: int = 3
    """Ranks that are queried, the most frequent word first."""
    ratio: int = 2
    """A word of these ranks occurs this many times as often as that of the next rank."""
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


class FWE(Task[FWEConfig]):
    """The generator. Controls as in `word_lists`."""

    Config = FWEConfig
    name = "fwe"
    axes = Axes(haystack=(NOTHING,), key=(NOTHING,), controls=LIST_CONTROLS, depth=False, distance=False)
    solved_by = ("most_frequent", "most_frequent_of_last_n")

    def layout(self, sample: Sample) -> Layout:
        """See Task. Raises EpisodeError for formats with too few strings."""
        cfg, tok, kind = self.config, sample.tokenizer, sample.factors.formats.value
        words = words_of(tok, kind, "value", FWE_WORDING, *self.seed_names)
        rates = cfg.ladder
        chosen = words.choose(len(rates), sample.draw("words", kind))
        if sample.factors.control == "no_needle":
            rates = [1] * len(rates)
        questions = [
            Question(
                key=RANKS[rank],
                text=words.strings[chosen[rank]],
                ask=tok.piece(ASK_RANK.format(rank=RANKS[rank])),
                answer=words.ids[chosen[rank]],
                longest=words.ids.shape[1],
                tail=tok.piece(TAIL) if rank < cfg.top - 1 else EMPTY,
                others=[words.ids[i] for i in chosen[rank + 1 :]],
                chance=rates[rank] / sum(rates[rank:]),
            )
            for rank in range(cfg.top)
        ]
        return list_layout(sample, words, chosen, rates, questions)
