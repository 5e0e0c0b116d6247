"""The protocols that differ from a given one in one thing, by cause: what somebody may have done differently.

A cause is a function of a Situation that yields labelled protocols; a new one is a function and a line in CAUSES.
What the user says about their measurement is part of the protocol that they are compared with, and not a cause.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from lcprobe.probing.explain.prompts import CHARACTERS, HARNESS_TASKS, WORDS, Subject
from lcprobe.probing.explain.protocol import Combine, Cut, Protocol
from lcprobe.probing.explain.scorers import READS_ON, SCORERS
from lcprobe.probing.explain.wrapping import WRAPPERS, template_names
from lcprobe.probing.frozen import BUDGETS, DEFAULT_BUDGET
from lcprobe.tasks.names import NOTHING, TEXTS
from lcprobe.tasks.niah import NIAH
from lcprobe.tasks.text.tokenizer import SHIPPED, load_tokenizer

SIZES = (16, 32, 64, 128, 256)
"""Budgets that are tried, in tokens."""
FIXED_DEPTHS = (0.0, 0.5, 1.0)
"""Depths that papers average over."""


@dataclass(frozen=True)
class Situation:
    """What the conditions depend on. base: the protocol as far as the user describes it. given: the fields of it that
    they state. answers: of a sample. tokenizers, prompts: by which the length may have been counted, and files of
    prompts."""

    base: Protocol
    subject: Subject
    given: frozenset[str] = frozenset()
    answers: int = 1
    tokenizers: Sequence[str] = ()
    prompts: Sequence[str] = ()

    @property
    def budget(self) -> int:
        """The stated budget, else RULER's for the task."""
        kind = self.subject.name.rpartition("/")[2].partition("_")[0]
        return self.base.budget or BUDGETS.get(kind, DEFAULT_BUDGET)


@dataclass(frozen=True)
class Condition:
    """One thing changed. cause: a key of CAUSES. says: what it is in words, after "theirs"."""

    name: str
    cause: str
    says: str
    protocol: Protocol


Found = Iterator[tuple[str, str, Protocol]]


def _protocol(s: Situation) -> Found:
    """Protocols that are used as a whole, and scorers with the budget that belongs to them inside the length."""
    read = replace(s.base, scorer="substring", budget=s.budget)
    if s.base.room != "budget":
        inside = replace(read, room="budget")
        says = "counts the answer anywhere in {} tokens, which are inside the length, as RULER does"
        yield "ruler", says.format(s.budget), inside
        says = f"whose {s.budget} generated tokens are inside the length"
        yield "exact, budget inside", f"requires the answer and nothing else, {says}", replace(inside, scorer="exact")
        first_line = replace(inside, scorer="first_line")
        yield "first_line, budget inside", f"counts the answer anywhere in the first line, {says}", first_line
    if s.base.samples != "lm-eval" and s.subject.name in HARNESS_TASKS:
        says = f"has lm-eval's samples and counts the answer anywhere in {s.budget} tokens, as lm-eval does"
        yield "lm-eval", says, replace(read, samples="lm-eval")


def _scorer(s: Situation) -> Found:
    says = {
        "ours": "is scored by the answer's first tokens",
        "prefix": "is scored by what the continuation begins with",
        "substring": "counts the answer anywhere in {} tokens",
        "exact": "requires {} tokens to be the answer and nothing else",
        "first_line": "counts the answer anywhere in the first line of {} tokens",
        "first_word": "requires the first word to be the answer",
    }
    for name in SCORERS:
        if name != s.base.scorer:
            more = s.budget if name in READS_ON else s.base.budget
            # a first word must have room to be longer than the answer
            more = max(more, 16) if name == "first_word" else more
            yield name, says[name].format(more), replace(s.base, scorer=name, budget=more)


def _budget(s: Situation) -> Found:
    if s.base.scorer in READS_ON:
        for size in SIZES:
            if size != s.budget:
                yield f"{size} tokens", f"reads {size} generated tokens", replace(s.base, budget=size)
    elif "scorer" not in s.given:  # a budget means nothing without a scorer that reads on
        for size in SIZES:
            if size < s.budget:  # what is generated for the whole budget has these too
                says = f"counts the answer anywhere in {size} tokens"
                yield f"substring, {size} tokens", says, replace(s.base, scorer="substring", budget=size)


def _room(s: Situation) -> Found:
    inside = replace(s.base, room="budget", budget=s.budget)
    outside = replace(s.base, room="none")
    answer = replace(s.base, room="answer")
    if s.base.room != "budget":
        yield "budget inside", f"has a length that includes {s.budget} tokens to generate", inside
    if s.base.room != "none":
        yield "budget outside", "has a length of the prompt alone", outside
    if s.base.room != "answer":
        yield "answer inside", "has a length that includes the answer and no more", answer


def _counted(s: Situation) -> Found:
    own = s.subject.tokenizer.identity
    others = [name for name in (*SHIPPED, *s.tokenizers) if load_tokenizer(name).identity != own]
    for name in ("", *dict.fromkeys(others), WORDS, CHARACTERS):
        if name != s.base.counted:
            says = f"counts the length in {name}" if name in (WORDS, CHARACTERS) else "counts the length with "
            says += "" if name in (WORDS, CHARACTERS) else f"the tokenizer {name or 'of the model'}"
            yield name or "own tokenizer", says, replace(s.base, counted=name)


def _bos(s: Situation) -> Found:
    if s.subject.tokenizer.bos_id is not None:
        usual = 1 if s.base.bos is None else s.base.bos
        for times, label in ((0, "none"), (1, "one"), (2, "two")):
            if times != usual:
                says = f"has {label} begin token{'s' if times == 2 else ''} before the prompt"
                says = "has no begin token before the prompt" if times == 0 else says
                yield label, says, replace(s.base, bos=times)


def _template(s: Situation) -> Found:
    for name in template_names(s.subject.templates):
        if name != s.base.template:
            says = "has no chat template" if name == "none" else f"has the chat template {name}"
            yield name, says, replace(s.base, template=name)


def _wrapper(s: Situation) -> Found:
    for name in ("none", *WRAPPERS):
        if name != s.base.wrapper:
            says = "has no instruction around the text" if name == "none" else f"has the instruction {name}"
            yield name, says, replace(s.base, wrapper=name)


def _cut(s: Situation) -> Found:
    says = {
        "none": "has whole prompts",
        "budget": f"has prompts cut on the left, begin token included, to the length without {s.budget} tokens",
        "3/4": "has prompts cut on the left, begin token included, to 3/4",
        "1/2": "has prompts cut on the left, begin token included, to half",
    }
    cuts: tuple[Cut, ...] = ("none", "budget", "3/4", "1/2")
    for cut in cuts:
        if cut != s.base.cut and (cut != "budget" or s.base.room != "budget"):
            label = "none" if cut == "none" else f"to {'the length less the budget' if cut == 'budget' else cut}"
            budget = s.budget if cut == "budget" else s.base.budget
            yield label, says[cut], replace(s.base, cut=cut, budget=budget)


def _space(s: Situation) -> Found:
    if s.base.tail == "space":
        yield "none", "has no space at the end of a prompt", replace(s.base, tail="none")
    else:
        yield "at the end", "has a space at the end of a prompt", replace(s.base, tail="space")


def _needles(s: Situation) -> Found:
    task = s.subject.task
    if isinstance(task, NIAH) and s.subject.formats.haystack != "needles":
        own = s.base.keys or task.config.n_keys
        if own > 1 and task.config.n_queries == 1:
            yield "one key", "has no other key in the context", replace(s.base, keys=1)


def _samples(s: Situation) -> Found:
    if s.base.samples != "ours":
        yield "ours", "has our samples", replace(s.base, samples="ours")
    if s.base.samples != "lm-eval" and s.subject.name in HARNESS_TASKS:
        yield "lm-eval", "has lm-eval's samples", replace(s.base, samples="lm-eval")
    for file in s.prompts:
        if s.base.samples != file:
            yield file, f"has the samples of {file}", replace(s.base, samples=file)


def _aggregation(s: Situation) -> Found:
    task = s.subject.task
    if task.axes.depth:
        says = "is a mean over the depths 0, 50 and 100 %"
        yield "fixed depths", says, replace(s.base, depths=FIXED_DEPTHS)
        for depth in FIXED_DEPTHS:
            yield f"depth {depth:g}", f"is of the depth {depth:g} alone", replace(s.base, depths=(depth,))
    own = s.subject.formats.haystack
    others = [name for name in TEXTS if name in task.axes.levels("haystack")]
    if s.subject.materials.corpus_to_cut is None:
        others = [name for name in others if name != "corpus"]
    if own != NOTHING and len(others) > 1:
        yield "several haystacks", f"is a mean over {', '.join(others)}", replace(s.base, haystacks=tuple(others))
        for name in (*others, "needles"):
            if name != own and name in task.axes.levels("haystack"):
                yield f"haystack {name}", f"is of the haystack {name}", replace(s.base, haystacks=(name,))
    rules: dict[Combine, str] = {
        "mean": "is a mean over answers",
        "all": "requires every answer of a sample",
        "any": "counts any answer of a sample",
    }
    for rule, says in rules.items():
        if s.answers > 1 and rule != s.base.combine:
            yield f"{rule} of the answers", says, replace(s.base, combine=rule)


CAUSES: dict[str, Callable[[Situation], Found]] = {
    "protocol": _protocol,
    "scorer": _scorer,
    "budget": _budget,
    "length": _room,
    "tokenizer": _counted,
    "bos": _bos,
    "template": _template,
    "wrapper": _wrapper,
    "cut": _cut,
    "space": _space,
    "needles": _needles,
    "samples": _samples,
    "aggregation": _aggregation,
}
"""Causes by name, in the order in which they are listed."""
FIELDS: dict[str, str] = {
    "protocol": "scorer",
    "scorer": "scorer",
    "budget": "budget",
    "length": "room",
    "tokenizer": "counted",
    "bos": "bos",
    "template": "template",
    "wrapper": "wrapper",
    "cut": "cut",
    "space": "tail",
    "needles": "keys",
    "samples": "samples",
    "aggregation": "combine",
}
"""The field of Protocol that states a cause."""


def conditions(situation: Situation, causes: Collection[str] = tuple(CAUSES)) -> list[Condition]:
    """Every condition of the causes that the user's description leaves open: no stated field is another. What two
    causes come to alike is one condition, of the first."""
    found = [
        Condition(f"{cause}: {label}", cause, says, protocol)
        for cause, find in CAUSES.items()
        if cause in causes and FIELDS[cause] not in situation.given
        for label, says, protocol in find(situation)
        if all(getattr(protocol, name) == getattr(situation.base, name) for name in situation.given)
    ]
    alike: dict[Protocol, Condition] = {situation.base: found[0]} if found else {}
    return [c for c in found if alike.setdefault(c.protocol, c) is c and c.protocol != situation.base]


def pairs(situation: Situation, singles: Sequence[Condition]) -> list[Condition]:
    """Two things changed: every condition with each of another scorer, which costs no more reading than one."""
    scorers = [c for c in singles if c.cause == "scorer"]
    return [
        Condition(f"{a.name} + {b.name}", f"{a.cause} + {b.cause}", f"{a.says} and {b.says}", both)
        for a in scorers
        for b in singles
        if b.cause not in ("protocol", "scorer", "budget")
        for both in [replace(b.protocol, scorer=a.protocol.scorer, budget=max(a.protocol.budget, b.protocol.budget))]
    ]
