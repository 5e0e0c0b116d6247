"""Question answering: facts or paragraphs in a context, and a question about one of them (one hop) or two of them
(two hops).

Sources: bAbI tasks 1 and 2 (arXiv 1502.05698) as BABILong hides them in text (arXiv 2406.10149); RULER's qa_1 and
qa_2 (arXiv 2404.06654), which ask SQuAD and HotpotQA questions over paragraphs. Differs from both: exact length, the
target fact at an exact depth, a closed label set in exactly equal numbers, works offline.

    hops 1   ... Clara Thornby is in the cellar. ... Hugo Ashwick is in the attic. ...
             Where is Clara Thornby? Clara Thornby is in the            -> " cellar"
    hops 2   ... The amber-falcon is with Clara Thornby. ... Clara Thornby is in the cellar. ...
             Where is the amber-falcon? The amber-falcon is in the      -> " cellar"

Equally many of the drawn persons are in each of the K places, and the queried one is exchangeable among them: any
rule that looks at places alone (the first, the last, the most frequent, any) scores 1 / K. For two hops the two
sentences have independent depths, so the place nearest to the thing is not the answer either.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from lcprobe.errors import require
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.episode import SUITE
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.parts.generated_facts import (
    ASK_PLACE,
    FACTS_WORDING,
    PERSONS,
    THINGS,
    fact_bank,
    owner_of,
    place_of,
    places_format,
)
from lcprobe.tasks.parts.layout import Context, Layout, Question, Sample, fill_with_lines, fill_with_text
from lcprobe.tasks.parts.passage_questions import Passages
from lcprobe.tasks.parts.placement import Cut, Needle
from lcprobe.tasks.text.formats import StringFormat, check_format
from lcprobe.tasks.text.haystack import Materials


@dataclass(frozen=True)
class QAConfig:
    """Questions about a generated world, or from a file. Haystack, length and depth are factors of the grid."""

    source: Literal["generated", "squad", "hotpot"] = "generated"
    """A templated world, or a file of SQuAD (v1.1, v2) or HotpotQA (distractor) questions."""
    path: str | None = None
    """For squad and hotpot: the JSON file, or hf:name[:config] when online; training and probing take different
    documents."""
    hops: int = 1
    """Facts of the generated world that an answer needs: 1 or 2."""
    labels: int = 4
    """Places of a sample, the closed set of its answers; chance is 1 / labels."""
    per_label: int = 1
    """Persons (hops 2: with one thing each) at every place, not counting those that fill the haystack `needles`."""

    def check(self, at: str) -> None:
        """Raises ConfigError for settings that do not fit together."""
        require(f"{at}.hops", self.hops, self.hops in (1, 2), "1 | 2")
        require(f"{at}.labels", self.labels, 2 <= self.labels <= 16, "2 .. 16")
        require(f"{at}.per_label", self.per_label, 1 <= self.per_label <= 64, "1 .. 64")
        generated = self.source == "generated"
        require(
            f"{at}.path", self.path, generated == (self.path is None), "a file with source: squad | hotpot, else null"
        )
        for name, default in (("hops", 1), ("labels", 4), ("per_label", 1)):
            value = getattr(self, name)
            require(f"{at}.{name}", value, generated or value == default, f"{default} with source: {self.source}")


class QuestionSource(Protocol):
    """Where the questions and their context come from. text_digest: of the file they depend on, if any."""

    text_digest: str

    def layout(self, sample: Sample) -> Layout:
        """See Task."""
        ...


class QA(Task[QAConfig]):
    """The generator.

    Controls: zero_distance puts the target fact (hops 2: thing first, then person) directly before the question;
    no_needle leaves it out; wrong_key asks about somebody who is not there, and the old answer counts; query_only is
    the question alone: what a model knows by heart, for questions from files.
    """

    Config = QAConfig
    name = "qa"

    def __init__(self, config: QAConfig, materials: Materials):
        """Raises ConfigError or DataError for a question file that is missing, not of the form, or without questions
        to probe with.
        """
        super().__init__(config, materials)
        generated = config.source == "generated"
        self.axes = Axes(key=(NOTHING,), value=(NOTHING,))
        self._source: QuestionSource
        if generated:
            self._source = World(config, materials)
        else:
            self.axes = Axes(haystack=(NOTHING,), key=(NOTHING,), value=(NOTHING,))
            self._source = Passages(config.source, config.path or "", materials.tokenizer)
            self.solved_by = ("same_question",)  # a question from a file tells what kind of answer it has
        self.text_digest = self._source.text_digest

    @property
    def seed_names(self) -> tuple[str, ...]:
        """Each kind of file is a task of its own."""
        source = self.config.source
        return (self.name, SUITE) if source == "generated" else (self.name, SUITE, source)

    def layout(self, sample: Sample) -> Layout:
        """See Task. Raises ConfigError for a file that has nothing to ask in the split."""
        return self._source.layout(sample)


class World:
    """Layouts of the generated world. Needle i says where person i is; needle n + i with whom thing i is."""

    text_digest = ""

    def __init__(self, config: QAConfig, materials: Materials):
        """Raises EpisodeError for a tokenizer that cannot give names back."""
        self.config, self.n = config, config.labels * config.per_label
        self._places = places_format(materials.tokenizer)
        for name, form in (("persons", PERSONS), ("things", THINGS), ("places", self._places)):
            check_format(name, form, materials.tokenizer)

    def layout(self, sample: Sample) -> Layout:
        """See Task."""
        cfg, tok, n = self.config, sample.tokenizer, self.n

        def drawn(form: StringFormat, n: int, name: str) -> list[str]:
            return sample.unique(FACTS_WORDING).draw(form, n, sample.draw(name), name)

        # the last person and thing are in no fact
        places, persons = drawn(self._places, cfg.labels, "places"), drawn(PERSONS, n + 1, "persons")
        things = drawn(THINGS, n + 1, "things") if cfg.hops == 2 else []
        needles = [place_of(tok, person, places[i % cfg.labels]) for i, person in enumerate(persons[:n])]
        if cfg.hops == 2:
            needles += [owner_of(tok, thing, person) for thing, person in zip(things[:n], persons[:n], strict=True)]
        targets = range(0, len(needles), n)  # the place first, then what leads to it
        cuts = sample.cuts(needles, sample.depths(len(needles)), targets[::-1], removed=targets)
        entities = things if cfg.hops == 2 else persons
        question = self._question(sample, places, entities, needles)

        def fill(room: int) -> Context:
            return self._fill(sample, [*persons, *things], places, cuts, room)

        return Layout(cuts, [question], f"{len(cuts)} facts", fill=fill)

    def _fill(self, sample: Sample, names: list[str], places: list[str], cuts: list[Cut], room: int) -> Context:
        """A window of text, or facts about others."""
        if sample.factors.formats.haystack != "needles" or not room:
            return fill_with_text(sample, cuts, room)
        labels = np.stack(sample.tokenizer.pieces([" " + place for place in places]))
        pick = sample.draw("facts")
        bank = fact_bank(sample.tokenizer, self.config.hops, *sample.names)
        facts = bank.run(pick.integer(1 << 30), room, names, labels, pick.integer(self.config.labels))
        return fill_with_lines(sample, cuts, room, facts)

    def _question(self, sample: Sample, places: list[str], entities: list[str], needles: list[Needle]) -> Question:
        tok, answer, ask = sample.tokenizer, needles[0], ASK_PLACE[self.config.hops]
        entity = entities[-1] if sample.factors.control == "wrong_key" else entities[0]
        return Question(
            key=entity,
            text=answer.text,
            ask=tok.piece(ask.format(entity=entity)),
            answer=answer.value,
            longest=self._places.tokens or len(answer.value),
            evidence=answer.evidence(0),
            others=tok.pieces([" " + place for place in places[1:]]),
            asked=len(tok.piece(ask.format(entity=entity).partition("?")[0] + "?")),
            longest_ask=max(map(len, tok.pieces([ask.format(entity=name) for name in entities[:-1]]))),
            chance=1.0 / self.config.labels,
            via=tuple(range(self.n, len(needles), self.n)),
        )
