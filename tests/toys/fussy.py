"""A toy task that cannot make one of its samples, as a tokenizer may find one that merges in every attempt."""

from lcprobe.errors import EpisodeError
from lcprobe.tasks.parts.layout import Layout, Sample
from tests.toys.task import MarkedWord

BAD_SAMPLE = 30


class Fussy(MarkedWord):
    """Marked words, without sample BAD_SAMPLE."""

    name = "fussy"

    def layout(self, sample: Sample) -> Layout:
        """See Task."""
        if sample.factors.index == BAD_SAMPLE:
            raise EpisodeError("formats.value", "one word too many", "fewer words")
        return super().layout(sample)
