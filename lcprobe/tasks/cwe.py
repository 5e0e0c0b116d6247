"""Common words: a shuffled list in which some words occur several times as often as the others; the questions ask
which ones do.

Source: Hsieh et al. 2024, RULER, arXiv 2404.06654 (cwe: name the ten common words of a list, any order, by recall).
Naming gives the answer away: every occurrence of a list's word is a common one with their share of the list (45 % at
4K), and "copy the last ten words" scores 70 there. Here words of the list are shown and the model says which kind
each is, drawn by a fair coin: whatever a guess knows of places, lists or earlier answers, it is right half of the
time.

    List: falcon acorn falcon .... In this list, the count of falcon is -> " large"; the count of acorn is -> " small"

Counts are `ratio` passes to one at every length (RULER: 30 to 3, and 6 to 1 below 4K, in a list that grows around
them), so length changes how much is to be counted and not how clear the signal is. Chance 1/2. A failure at a length
where the shortest one is passed means that counts are not kept over so many words. Not all of a long list is needed:
the exact counts of its last 50 / 200 / 1000 words alone give .73 / .91 / 1.00 at 32K (10 common and 20 rare words).
"""

from dataclasses import dataclass

from lcprobe.errors import require
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.parts.layout import EMPTY, Layout, Question, Sample
from lcprobe.tasks.parts.word_lists import CLOSING, LIST_CONTROLS, OPENING, list_layout, words_of

ASK_KIND, TAIL, LABELS = " the count of {key} is", ";", ("small", "large")
CWE_WORDING = OPENING + CLOSING + ASK_KIND + " ".join(LABELS)


@dataclass(frozen=True)
class CWEConfig:
    """Common words. The format of the words (key) and the length are factors of the grid."""

    common: int = 8
    """Words that occur `ratio` times as often as the others."""
    rare: int = 16
    """The other words."""
    ratio: int = 3
    """Occurrences of a common word per occurrence of a rare word, at every length."""
    questions: int = 6
    """Different words that are queried, each common or rare by a fair coin."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts that do not fit together."""
        for name in ("common", "rare", "questions"):
            require(f"{at}.{name}", getattr(self, name), 1 <= getattr(self, name) <= 1000, "1 .. 1000")
        require(f"{at}.ratio", self.ratio, 2 <= self.ratio <= 100, "2 .. 100")
        most = min(self.common, self.rare)
        require(f"{at}.questions", self.questions, self.questions <= most, f"<= common and rare ({most})")


class CWE(Task[CWEConfig]):
    """The generator. Controls as in `word_lists`."""

    Config = CWEConfig
    name = "cwe"
    axes = Axes(haystack=(NOTHING,), value=(NOTHING,), controls=LIST_CONTROLS, depth=False, distance=False)

    def layout(self, sample: Sample) -> Layout:
        """See Task. Raises EpisodeError for formats with too few strings."""
        cfg, tok, kind = self.config, sample.tokenizer, sample.factors.formats.key
        words = words_of(tok, kind, "key", CWE_WORDING, *self.seed_names)
        chosen = words.choose(cfg.common + cfg.rare, sample.draw("words", kind))
        # queried words are any of their kind: the order of `chosen` is drawn
        of_kind = [iter(chosen[cfg.common :]), iter(chosen[: cfg.common])]
        labels = [tok.piece(" " + label) for label in LABELS]
        questions = []
        for number, is_common in enumerate(sample.draw("coins").integers(2, cfg.questions).tolist()):
            word = words.strings[next(of_kind[is_common])]
            question = Question(
                key=word,
                text=LABELS[is_common],
                ask=tok.piece(ASK_KIND.format(key=word)),
                answer=labels[is_common],
                longest=max(map(len, labels)),
                tail=tok.piece(TAIL) if number < cfg.questions - 1 else EMPTY,
                others=[labels[1 - is_common]],
                chance=1 / 2,
            )
            questions.append(question)
        rates = [cfg.ratio] * cfg.common + [1] * cfg.rare
        if sample.factors.control == "no_needle":
            rates = [1] * len(chosen)
        return list_layout(sample, words, chosen, rates, questions)
