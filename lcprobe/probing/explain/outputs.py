"""Somebody's own prompts and continuations, looked at directly: their number under each scorer, and what the prompts
are like. Where their number comes out exactly, the cause is known and not inferred.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcprobe.errors import DataError, shown
from lcprobe.json_lines import json_rows
from lcprobe.probing.explain.prompts import CHARACTERS, WORDS
from lcprobe.probing.explain.protocol import Combine, Protocol
from lcprobe.probing.explain.scorers import RULES, combined, right_references
from lcprobe.probing.explain.wrapping import IN_USER_TURN, TEMPLATES, WRAPPERS, Frame
from lcprobe.tasks.text.tokenizer import SHIPPED, Tokenizer, load_tokenizer

PROMPTS = ("prompt", "input")
CONTINUATIONS = ("continuation", "pred", "prediction", "output", "response")
ANSWERS = ("answers", "outputs", "answer", "target")
NOISE = "The grass is green. The sky is blue."
LONE = re.compile("[\ud800-\udfff]")
NEAR, FAR = 0.03, 0.1
"""Relative difference of mean lengths, and difference of shares, up to which two files may be alike."""
COMBINES: tuple[Combine, ...] = ("mean", "all", "any")


@dataclass(frozen=True)
class Output:
    """One line: a prompt, what their model wrote, and what is right."""

    prompt: str
    continuation: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class OutputFacts:
    """What a file says. numbers: by scorer and rule for several answers. tokens: mean length of a prompt in units by
    name, without a begin token but what is text. begin: share of prompts that begin with the begin token as text.
    templates, wrappers: found in all prompts; in_turn: templates at which the prompts end. place: mean place of an
    answer's first occurrence, 0 .. 1 of the prompt; None where answers do not occur. noise: share of prompts with
    RULER's noise. spaced: that end with a space."""

    n: int
    numbers: Mapping[tuple[str, Combine], float]
    tokens: Mapping[str, float]
    continuation_tokens: float
    begin: float
    templates: tuple[str, ...]
    wrappers: tuple[str, ...]
    in_turn: tuple[str, ...]
    place: float | None
    noise: float
    spaced: float

    def reproduced(self, value: float, digits: int) -> list[tuple[str, Combine]]:
        """Scorers that give their number to all its decimal places."""
        return [key for key, own in self.numbers.items() if abs(own - value) <= 0.5 * 10.0**-digits + 1e-12]


def read_outputs(path: Path) -> list[Output]:
    """Read and check a whole file. Raises DataError naming the file and the line."""
    rows = [_output(row, f"{path}:{number}") for number, row in json_rows(path)]
    if not rows:
        raise DataError(f"{path}: no line; allowed: JSON lines with prompt, continuation and answers")
    return rows


def facts_of_outputs(
    outputs: Sequence[Output],
    tokenizer: Tokenizer,
    tokenizers: Sequence[str],
    templates: Mapping[str, Frame] = TEMPLATES,
) -> OutputFacts:
    """Their numbers under every scorer, and their prompts in every unit. Half characters, which no tokenizer reads,
    are read as replacement characters."""
    outputs = [
        Output(_readable(o.prompt), _readable(o.continuation), tuple(map(_readable, o.references))) for o in outputs
    ]
    found = ((o.prompt.find(o.references[0]), len(o.prompt)) for o in outputs)
    places = [at / of for at, of in found if at >= 0]
    numbers: dict[tuple[str, Combine], float] = {
        (scorer, combine): sum(
            combined(right_references(scorer, o.continuation, o.references, None), combine) for o in outputs
        )
        / len(outputs)
        for scorer in RULES
        for combine in COMBINES
    }
    several = any(len(o.references) > 1 for o in outputs)
    numbers = {key: value for key, value in numbers.items() if several or key[1] == "mean"}
    units: dict[str, list[float]] = {"": [len(tokenizer.encode(o.prompt)) for o in outputs]}
    for name in dict.fromkeys((*SHIPPED, *tokenizers)):
        other = load_tokenizer(name)
        if other.identity != tokenizer.identity:
            units[name] = [len(other.encode(o.prompt)) for o in outputs]
    units[WORDS] = [len(o.prompt.split()) for o in outputs]
    units[CHARACTERS] = [len(o.prompt) / 4 for o in outputs]
    begin = "" if tokenizer.bos_id is None else tokenizer.decode(np.array([tokenizer.bos_id]))
    return OutputFacts(
        n=len(outputs),
        numbers=numbers,
        tokens={name: sum(own) / len(own) for name, own in units.items()},
        continuation_tokens=sum(len(tokenizer.encode(o.continuation)) for o in outputs) / len(outputs),
        begin=sum(bool(begin) and o.prompt.startswith(begin) for o in outputs) / len(outputs),
        templates=tuple(n for n, f in templates.items() if _everywhere(f.between.strip(), outputs)),
        wrappers=tuple(n for n, f in WRAPPERS.items() if _everywhere(_mark(f), outputs)),
        in_turn=tuple(n for n, f in templates.items() if all(o.prompt.endswith(f.between.rstrip()) for o in outputs)),
        place=sum(places) / len(places) if places else None,
        noise=sum(NOISE in o.prompt for o in outputs) / len(outputs),
        spaced=sum(o.prompt.endswith(" ") for o in outputs) / len(outputs),
    )


def contradictions(facts: OutputFacts, expected: "Expected") -> list[str]:
    """What of a protocol their file rules out, in words; nothing where it may have been theirs."""
    found, protocol = [], expected.protocol
    far = max(FAR, facts.n**-0.5)  # a mean of few places says little
    scorers = {scorer for scorer, combine in expected.reproduced if combine == protocol.combine}
    if expected.reproduced and ("prefix" if protocol.scorer == "ours" else protocol.scorer) not in scorers:
        found.append("its scorer does not give their number on their continuations")
    tokens = facts.tokens[""] + expected.added
    # prompts may be written to a file before they are cut
    if protocol.cut == "none" and abs(tokens - expected.tokens) > NEAR * expected.tokens:
        found.append(f"its prompts have {expected.tokens:.0f} tokens and theirs {tokens:.0f}")
    name = protocol.template.removesuffix(IN_USER_TURN)
    if name == "none" and facts.templates:
        found.append("their prompts have a chat template")
    if name != "none" and (name not in facts.templates or protocol.template.endswith("+") != (name in facts.in_turn)):
        found.append("their prompts do not have this chat template")
    if protocol.wrapper == "none" and facts.wrappers:
        found.append("their prompts have an instruction")
    if protocol.wrapper != "none" and protocol.wrapper not in facts.wrappers:
        found.append("their prompts do not have this instruction")
    if protocol.samples == "ours" and (protocol.tail == "space") != (facts.spaced > 0.5):
        found.append(f"{facts.spaced:.0%} of their prompts end with a space")
    if facts.place is not None and expected.place is not None and abs(facts.place - expected.place) > far:
        found.append(f"its needles are at {expected.place:.0%} of the prompt and theirs at {facts.place:.0%}")
    if expected.noise is not None and abs(facts.noise - expected.noise) > FAR:
        found.append(f"RULER's noise is in {expected.noise:.0%} of its prompts and in {facts.noise:.0%} of theirs")
    return found


@dataclass(frozen=True)
class Expected:
    """What a file would be like under a protocol. reproduced: scorers that give their number on it. tokens: mean of a
    prompt's, of which `added` are no text. place, noise: see OutputFacts; None where nothing is expected."""

    protocol: Protocol
    reproduced: Sequence[tuple[str, Combine]]
    tokens: float
    added: int
    place: float | None
    noise: float | None


def _readable(text: str) -> str:
    """A text without lone surrogates."""
    return LONE.sub("\ufffd", text)


def _mark(frame: Frame) -> str:
    """Words by which a wrapper is known."""
    return frame.before.strip() or frame.between.partition("{key}")[0].strip()


def _everywhere(text: str, outputs: Sequence[Output]) -> bool:
    return bool(text) and all(text in output.prompt for output in outputs)


def _output(row: dict[str, Any], where: str) -> Output:
    prompt, continuation = _text(row, PROMPTS, where), _text(row, CONTINUATIONS, where)
    prefix = row.get("answer_prefix") or ""
    if isinstance(prefix, str) and prefix and not prompt.endswith(prefix):
        prompt += prefix
    key = next((name for name in ANSWERS if name in row), None)
    given = row.get(key) if key else None
    answers = [given] if isinstance(given, str) else given
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a for a in answers):
        raise DataError(f"{where}: {key or 'answers'}: given {shown(given)}; allowed: a text or a list of texts")
    return Output(prompt, continuation, tuple(answers))


def _text(row: dict[str, Any], names: Sequence[str], where: str) -> str:
    key = next((name for name in names if name in row), None)
    value = row.get(key) if key else None
    if not isinstance(value, str):
        raise DataError(f"{where}: {key or names[0]}: given {shown(value)}; allowed: text")
    return value
