"""A toy task: words marked with colours in a text, and one colour's word is queried.

... The red word is falcon. ... The blue word is acorn. ...  The red word is    -> " falcon"
"""

from dataclasses import dataclass

from lcprobe.errors import require
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.names import NOTHING, RUNNING
from lcprobe.tasks.parts.layout import Layout, Question, Sample
from lcprobe.tasks.parts.placement import make_needles

COLOURS = ("red", "blue", "green", "white")
ASK, TAIL = " The {colour} word is", "."


@dataclass(frozen=True)
class MarkedWordConfig:
    """Settings of the toy task."""

    n_words: int = 2
    """Marked words in the context."""

    def check(self, at: str) -> None:
        """Raises ConfigError for more words than colours."""
        require(f"{at}.n_words", self.n_words, 2 <= self.n_words <= len(COLOURS), f"2 .. {len(COLOURS)}")


class MarkedWord(Task[MarkedWordConfig]):
    """Marked words in a text; the first needle is the target."""

    Config = MarkedWordConfig
    name = "marked_word"
    axes = Axes(haystack=RUNNING, key=(NOTHING,), controls=("none", "zero_distance", "no_needle", "query_only"))

    def layout(self, sample: Sample) -> Layout:
        """See Task."""
        n, kind = self.config.n_words, sample.factors.formats.value
        form = self.string_format(kind, "value")
        words = sample.unique(ASK + "".join(COLOURS)).draw(form, n, sample.draw("words", kind), "formats.value")
        colours = [COLOURS[i] for i in sample.draw("colours").permutation(len(COLOURS))[:n]]
        asks = [ASK.format(colour=colour) for colour in colours]
        needles = make_needles(sample.tokenizer, asks, words, TAIL)
        cuts = sample.cuts(needles, sample.depths(n), targets=[0])
        target, others = needles[0], [cut.needle.value for cut in cuts if cut.index != 0]
        question = Question(
            key=colours[0],
            text=target.text,
            ask=target.ask,
            answer=target.value,
            longest=max(len(needle.value) for needle in needles),
            longest_ask=max(len(needle.ask) for needle in needles),
            evidence=target.evidence(0),
            others=others,
            chance=1 / (len(others) + 1),
        )
        return Layout(cuts, [question], what=f"{n} marked words")
