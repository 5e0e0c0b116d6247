"""Text around a prompt: chat templates and instructions, put where others put them.

A prompt is a context and a cue, the last words before the answer ("The secret value for falcon is"). In a chat the
cue opens the assistant's turn; with `+` behind the template's name it stays at the end of the user's, where the model
answers after the turn's header. Sources: RULER's scripts/data/template.py and synthetic/constants.py; the ChatML,
Llama 2 and Alpaca formats as published; the probe's own templates (`tasks/text/templates.py`).

Here templates are put around text, as those do who have no tokens to keep, and not as the probe does.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from lcprobe.tasks.episode import Episode, Query
from lcprobe.tasks.text.templates import NAMED_TEMPLATES, PromptTemplate

SENTENCE_END = re.compile(r"(?<=[.;!?\n])\s+(?=\S)")


@dataclass(frozen=True)
class Frame:
    """Texts before the context and between context and cue. {key}: that of the question."""

    before: str
    between: str


def frame_of(template: PromptTemplate) -> Frame:
    """A template of the probe around text: what follows each of its parts begins with a space."""
    parts = (template.before, template.between)
    return Frame(*(part if not part or part[-1].isspace() else part + " " for part in parts))


TEMPLATES: dict[str, Frame] = {
    **{name: frame_of(template) for name, template in NAMED_TEMPLATES.items() if not template.is_none},
    "chatml": Frame("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    "llama2": Frame("[INST] ", " [/INST] "),
    "alpaca": Frame(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n",
        "\n\n### Response:\n",
    ),
    "roles": Frame("User: ", "\n\nAssistant: "),
}
WRAPPERS: dict[str, Frame] = {
    "ruler": Frame(
        "A special magic value is hidden within the following text. Make sure to memorize it. I will quiz you about "
        "the value afterwards.\n",
        "\nWhat is the special magic value for {key} mentioned in the provided text? ",
    ),
    "instruction": Frame("Read the following text and answer the question at its end.\n\n", "\n\n"),
    "question": Frame("", "\n\nQuestion: what is the value for {key}?\nAnswer: "),
}
IN_USER_TURN = "+"
"""Behind a template's name: the cue is in the user's turn."""


def cue_tokens(episode: Episode, query: Query) -> int:
    """How many of the prompt's last tokens are the cue, where they are what precedes the value in its needle; 0 where
    they are not."""
    at = query.needle
    if at is None:
        return 0
    start = next((start for start, stop in episode.needles if start <= at < stop), at)
    prompt = episode.sequence(query)[: query.start]
    alike = np.array_equal(prompt[start:at], prompt[query.start - (at - start) :])
    return at - start if alike else 0


def split_at_cue(context: str, cue: str) -> tuple[str, str]:
    """Context and cue; for a cue that is not known, all after the last sentence of the context."""
    if cue:
        return context, cue
    ends = [match.end() for match in SENTENCE_END.finditer(context)]
    return (context[: ends[-1]], context[ends[-1] :]) if ends else ("", context)


def framed(context: str, cue: str, key: str, template: str, wrapper: str, templates: Mapping[str, Frame]) -> str:
    """The prompt's text with a wrapper and a template around it; names are keys of WRAPPERS and `templates`, or
    `none`."""
    context, cue = split_at_cue(context, cue)
    context, cue = context.strip(), cue.strip()
    before, between = "", " "
    if wrapper != "none":
        before, between = WRAPPERS[wrapper].before, WRAPPERS[wrapper].between.format(key=key)
    if template == "none":
        return before + context + between + cue
    frame = templates[template.removesuffix(IN_USER_TURN)]
    if template.endswith(IN_USER_TURN):
        return frame.before + before + context + between + cue + frame.between.rstrip(" ")
    return frame.before + before + context + between.rstrip() + frame.between + cue


def template_names(templates: Iterable[str] = tuple(TEMPLATES)) -> list[str]:
    """`none`, and every template in both forms."""
    return ["none", *(name + form for name in templates for form in ("", IN_USER_TURN))]
