"""RULER v2, as far as its definitions are public and need no data set: five of its twelve tasks.

Source: Hsieh et al. 2025, RULERv2 (NeurIPS 2025 workshop), as built by NVIDIA's NeMo-Skills (`dataset/ruler2`). All
of a context is needles. Where values are numbers, those that are asked for are inserted before haystack needles that
are drawn at random, so that none of them is ever last.

    mk basic   One of the special magic numbers for wide-eyed-owl is: 4071932266.     one key, one value of ten digits
    mv basic   the same with four values for every key, all of which are asked for
    mk easy    Question 4071932: In which year ... A. ... B. ...                      copy the question of a number
    mv easy    four questions share every number; copy all of them
    mv hard    the same; copy the second, say, of a number

The others need MMLU or HotpotQA (mk medium, mk hard, qa) or the answer in two steps (mv medium: the prompt asks for
all questions of the number first). Questions are made up here, so that what the real ones leak (those that are asked
come from MMLU's test part, the others from its auxiliary training part) is not seen.

The score is the share of the expected answers that the output contains, whatever else it contains, and no budget of
tokens is part of the definition.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import Tokenizer, read_words

NUMBERS, QUESTIONS = r" is: (\d+)\.", r"Question \d{7}: (.*)"
KIND = "One of the special magic numbers for {key} is: {value}."
HIDDEN = "Some special magic {what} hidden within the following text. Make sure to memorize {them}.\n{context}\n{ask}"
ORDINALS = ("1st", "2nd", "3rd", "4th")


@dataclass(frozen=True)
class Puzzle:
    """text: the prompt; values: what may be the answer, in order of appearance; answers: those expected."""

    text: str
    values: tuple[str, ...]
    answers: tuple[str, ...]

    def score(self, printed: str) -> float:
        """RULER's recall of the answers."""
        return sum(answer.lower() in printed.lower() for answer in self.answers) / len(self.answers)


@dataclass(frozen=True)
class Definition:
    """needles: of the task; group: needles of one key in the haystack; copies: whether questions are copied;
    asks_one: whether one of a key's needles is asked for."""

    needles: int
    group: int
    copies: bool
    asks_one: bool


TASKS: dict[str, Definition] = {
    "mk_niah_basic": Definition(1, 1, copies=False, asks_one=True),
    "mv_niah_basic": Definition(4, 4, copies=False, asks_one=False),
    "mk_niah_easy": Definition(1, 1, copies=True, asks_one=True),
    "mv_niah_easy": Definition(4, 4, copies=True, asks_one=False),
    "mv_niah_hard": Definition(4, 4, copies=True, asks_one=True),
}


def puzzles(task: str, length: int, n: int, tokenizer: Tokenizer) -> list[Puzzle]:
    """n prompts of at most `length` tokens, as many haystack needles in each as fit in the first."""
    definition, build = TASKS[task], _questions if TASKS[task].copies else _numbers

    def fits(lines: int) -> bool:
        return len(tokenizer.encode(build(definition, lines, Stream("ruler v2", task, 0)).text)) <= length

    low, high = max(5, definition.needles), length
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return [build(definition, low, Stream("ruler v2", task, i)) for i in range(n)]


def _numbers(definition: Definition, lines: int, rng: Stream) -> Puzzle:
    keys = _keys(1 + -(-lines // definition.group), rng)
    numbers = _distinct(lambda: str(10**9 + rng.integer(9 * 10**9)), lines + definition.needles)
    own, others = numbers[: definition.needles], numbers[definition.needles :]
    haystack = [KIND.format(key=keys[1 + i // definition.group], value=value) for i, value in enumerate(others)]
    haystack = [haystack[i] for i in rng.permutation(lines)]
    needles = [KIND.format(key=keys[0], value=value) for value in own]
    for place, needle in zip(sorted(rng.permutation(lines)[: len(needles)], reverse=True), needles, strict=True):
        haystack.insert(place, needle)
    plural = definition.needles > 1
    ask = f"What {'are all the' if plural else 'is the'} special magic number{'s' * plural} for {keys[0]} mentioned "
    ask += f"in the provided text? The special magic number{'s' * plural} for {keys[0]} mentioned in the provided "
    ask += f"text {'are' if plural else 'is'}"
    text = HIDDEN.format(
        what="numbers are" if plural else "number is",
        them="them" if plural else "it",
        context="\n".join(haystack),
        ask=ask,
    )
    values = tuple(line.rsplit(" ", 1)[1][:-1] for line in haystack)
    return Puzzle(text, values, tuple(own))


def _questions(definition: Definition, lines: int, rng: Stream) -> Puzzle:
    words = read_words("nouns")
    questions = _distinct(lambda: _question(words, rng), lines + 1)
    numbers = _distinct(lambda: str(10**6 + rng.integer(9 * 10**6)), -(-(lines + 1) // definition.group))
    shuffled = [(numbers * definition.group)[i] for i in rng.permutation(len(numbers) * definition.group)][
        : lines + 1
    ]
    entries = list(zip(shuffled[:lines], questions[1:], strict=True))
    asked = shuffled[lines], questions[0]
    entries.insert(rng.integer(lines + 1), asked)  # the one that is asked for is nowhere special
    same = [question for number, question in entries if number == asked[0]]
    context = "\n\n".join(f"Question {number}: {question}" for number, question in entries)
    order = f"{ORDINALS[same.index(asked[1])]} (1 indexed) " if definition.group > 1 else ""
    ask = f"Please copy the {order}Question {asked[0]} from the context."
    if not definition.asks_one:
        ask = f"Please find and copy all the Question {asked[0]} from the context."
    text = f"Below are some questions. I will ask you to copy one of them.\n\n{context}\n\n{ask}"
    values = tuple(question for _, question in entries)
    return Puzzle(text, values, (asked[1],) if definition.asks_one else tuple(same))


def _question(words: Sequence[str], rng: Stream) -> str:
    some = [words[i] for i in rng.permutation(len(words))[:9]]
    choices = " ".join(f"{letter}. the {word}" for letter, word in zip("ABCD", some[5:], strict=True))
    return f"Which {some[0]} of the {some[1]} has a {some[2]} but no {some[3]} near its {some[4]}? {choices}"


def _keys(n: int, rng: Stream) -> list[str]:
    adjectives, nouns = read_words("adjectives"), read_words("nouns")
    return _distinct(lambda: f"{rng.pick(adjectives)}-{rng.pick(nouns)}", n)


def _distinct(draw: Callable[[], str], n: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < n:
        found.setdefault(draw())
    return list(found)
