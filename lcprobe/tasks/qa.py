"""Question answering: facts or paragraphs in a context, one question about one of them (one hop) or two of them (two hops).

Sources: bAbI tasks 1 and 2 (arXiv 1502.05698) as BABILong hides them in text (arXiv 2406.10149); RULER's qa_1 and qa_2 (arXiv
2404.06654), which ask SQuAD and HotpotQA questions over paragraphs. Differs from both: exact length, the asked fact at an exact
depth, a closed label set in exactly equal numbers, works offline.

    hops 1   ... Clara Thornby is in the cellar. ... Hugo Ashwick is in the attic. ...
             Where is Clara Thornby? Clara Thornby is in the            -> " cellar"
    hops 2   ... The amber-falcon is with Clara Thornby. ... Clara Thornby is in the cellar. ...
             Where is the amber-falcon? The amber-falcon is in the      -> " cellar"

Each of the K places is where equally many of the drawn persons are, and who is asked about is exchangeable among them: whatever
looks at places alone (the first, the last, the most frequent, any) scores 1 / K. For two hops the two sentences stand at
independent depths, so the place that is nearest to the thing is not the answer either.
"""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from lcprobe.errors import require
from lcprobe.seeds import Draws
from lcprobe.tasks.assembly import (
    EMPTY,
    Axes,
    Built,
    Haystack,
    Question,
    TooShort,
    assemble,
    bos_piece,
    certify,
    fixed_tokens,
    least_length,
)
from lcprobe.tasks.episode import SUITE, Episode, Factors
from lcprobe.tasks.names import CONTROLS, NOTHING
from lcprobe.tasks.parts.generated_facts import (
    ASK,
    PERSONS,
    THINGS,
    WORDING,
    FactBank,
    owner_of,
    place_of,
    places_format,
)
from lcprobe.tasks.parts.passage_questions import Passages
from lcprobe.tasks.parts.placement import Cut, Needle, in_lines, in_text
from lcprobe.tasks.text.formats import check_format, draw_strings
from lcprobe.tasks.text.haystack import MAX_SHIFT, Materials, TokenStream

WIDEST_GUARD = 1 << 17
"""Names and places are absent from this much haystack if possible, so that they are the same at every shorter length."""


@dataclass(frozen=True)
class QAConfig:
    """Questions about a generated world, or from a file. Haystack, length and depth are factors of the grid."""

    source: Literal["generated", "squad", "hotpot"] = "generated"
    """A templated world, or a file of SQuAD (v1.1, v2) or HotpotQA (distractor) questions."""
    path: str | None = None
    """For squad and hotpot: the JSON file, or hf:name[:config] when online; training and probing take different documents."""
    hops: int = 1
    """Facts of the generated world that an answer needs: 1 or 2."""
    labels: int = 4
    """Places of a sample, the closed set of its answers; chance is 1 / labels."""
    per_label: int = 1
    """Persons (hops 2: with one thing each) at every place, beside those that fill the haystack `needles`."""

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


class Builder(Protocol):
    """Where a source's episodes come from. digest: of the file they depend on, if any."""

    digest: str

    def build(self, factors: Factors, attempt: int) -> Built:
        """One layout. Raises TooShort naming the least length."""
        ...


class QA:
    """The generator: `episode(factors)` is a pure function of the config, the materials and the factors.

    Controls: zero_distance puts the asked fact (hops 2: thing first, then person) directly before the question; no_needle leaves
    it out; wrong_key asks for somebody who is not there, and the old answer counts; query_only is the question alone: what a
    model knows by heart, for questions from files.
    """

    Config = QAConfig
    needs_lookup = True

    def __init__(self, config: QAConfig, materials: Materials):
        self.config, self.materials = config, materials
        self._builder: Builder
        if config.source == "generated":
            self.axes = Axes(key=(NOTHING,), value=(NOTHING,), controls=CONTROLS)
            self._builder = World(config, materials)
        else:
            self.axes = Axes(haystack=(NOTHING,), key=(NOTHING,), value=(NOTHING,), controls=CONTROLS)
            self._builder = Passages(config.source, config.path or "", materials.tokenizer)

    @property
    def digest(self) -> str:
        """Of the question file, empty without one: part of what records say about a task."""
        return self._builder.digest

    @property
    def solved_by(self) -> tuple[str, ...]:
        """Policies of the cheating battery that read the question: one from a file says what kind of answer it has."""
        return () if self.config.source == "generated" else ("same_question",)

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens (query_only: as long as its question and answer).

        Raises EpisodeError for a length that is too short (naming the least), ConfigError for factors outside `axes` and for a
        file that has nothing to ask in the split.
        """
        self.axes.check(factors)
        return certify(lambda attempt: self._builder.build(factors, attempt), factors, self.materials.tokenizer)

    def shortest(self, factors: Factors) -> int:
        """The least length at which this sample exists. Raises EpisodeError for a tokenizer that cannot give names back."""
        self.axes.check(factors)
        return least_length(lambda: self._builder.build(replace(factors, length=1), 0))


class World:
    """Episodes of the generated world. Needle i says where person i is; needle n + i with whom thing i is."""

    digest = ""

    def __init__(self, config: QAConfig, materials: Materials):
        self.config, self.materials, self.n = config, materials, config.labels * config.per_label
        self._places = places_format(materials.tokenizer)
        self._banks: dict[str, FactBank] = {}
        for name, form in (("persons", PERSONS), ("things", THINGS), ("places", self._places)):
            check_format(name, form, materials.tokenizer)

    def build(self, factors: Factors, attempt: int) -> Built:
        """The episode and where its pieces join."""
        cfg, tok, control, n = self.config, self.materials.tokenizer, factors.control, self.n
        draw = Draws("qa", SUITE, factors.split, factors.index)
        as_facts = factors.formats.haystack == "needles"
        stream = self.materials.stream("words" if as_facts else factors.formats.haystack)
        offset = (draw("haystack").integer(len(stream)) + 101 * attempt) % len(stream)
        places, persons, things = self._strings(factors, draw, stream, offset)
        needles = [place_of(tok, person, places[i % cfg.labels]) for i, person in enumerate(persons[:n])]
        if cfg.hops == 2:
            needles += [owner_of(tok, thing, person) for thing, person in zip(things[:n], persons[:n], strict=True)]
        depths = [factors.depth, *draw("depth").uniform(len(needles))[1:].tolist()]
        asked = range(0, len(needles), n)  # the place first, then what leads to it
        order = [] if control == "query_only" else list(range(len(needles)))
        if control == "no_needle":
            order = [i for i in order if i not in asked]
        past: dict[int, float] = {i: 3.0 - hop for hop, i in enumerate(asked)} if control == "zero_distance" else {}
        cuts = [
            Cut(i, past[i] if i in past else depths[i], needles[i]) for i in order
        ]  # past 1: after all the others

        question = self._question(places, things if cfg.hops == 2 else persons, needles, control)
        before = [bos_piece(tok)]
        fixed = fixed_tokens(before, [needles[i].whole for i in order], [question])
        room = 0 if control == "query_only" else factors.length - fixed
        if room < 0:
            raise TooShort(factors.length, fixed, f"{len(order)} facts")
        if as_facts and room:
            labels = np.stack(tok.pieces([" " + place for place in places]))
            pick = draw("facts")
            filled = self._bank(factors.split).run(
                pick.integer(1 << 30), room, [*persons, *things], labels, pick.integer(cfg.labels)
            )
            left = room - len(filled.ids)
            start = stream.window(offset, left) if left else offset
            lines = np.arange(len(filled.ends) - 1)
            context = in_lines(filled, lines, stream.take(start, left), cuts, 0)
        else:
            start = stream.window(offset, room) if room else offset
            context = in_text(stream, start, room, cuts)
        inner = {i: needles[i].joints for i in order}
        return assemble(before, context, [question], Haystack(start, room, room / len(stream)), inner)

    def _strings(
        self, factors: Factors, draw: Draws, stream: TokenStream, offset: int
    ) -> tuple[list[str], list[str], list[str]]:
        """Places, and n + 1 persons and things (the last are in no fact), absent from the haystack's window."""
        cfg, tok = self.config, self.materials.tokenizer
        least = min(factors.length + MAX_SHIFT, len(stream))
        most = max(least, min(WIDEST_GUARD, len(stream)))

        def free(string: str) -> int:
            # of a person the surname: there are few enough to remember where each occurs
            return -1 if string in WORDING else stream.free_run(string.split()[-1], offset)

        places = draw_strings(self._places, cfg.labels, draw("places"), tok, free, least, most, "places")
        persons = draw_strings(PERSONS, self.n + 1, draw("persons"), tok, free, least, most, "persons")
        things: list[str] = []
        if cfg.hops == 2:
            things = draw_strings(THINGS, self.n + 1, draw("things"), tok, free, least, most, "things")
        return places, persons, things

    def _question(self, places: list[str], entities: list[str], needles: list[Needle], control: str) -> Question:
        cfg, tok = self.config, self.materials.tokenizer
        entity = entities[-1] if control == "wrong_key" else entities[0]
        others = tok.pieces([" " + place for place in places[1:]])
        answer = needles[0]
        return Question(
            key=entity,
            text=answer.text,
            ask=tok.piece(ASK[cfg.hops].format(entity=entity)),
            answer=answer.value,
            tail=EMPTY,
            evidence=(0, len(answer.ask), len(answer.value)),
            others=others,
            chance=1.0 / cfg.labels,
            via=tuple(range(self.n, len(needles), self.n)),
        )

    def _bank(self, split: str) -> FactBank:
        if split not in self._banks:
            self._banks[split] = FactBank(self.materials.tokenizer, self.config.hops, "qa", SUITE, split)
        return self._banks[split]
