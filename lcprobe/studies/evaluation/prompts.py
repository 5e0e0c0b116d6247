"""Prompt templates of the probed models: `probe.templates`, resolved for each of them."""

from collections.abc import Sequence

from lcprobe.errors import ConfigError
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.tasks.text.templates import NAMED_TEMPLATES, NO_TEMPLATE, PromptTemplate


def templates_of(target: ProbeTarget, names: Sequence[str]) -> tuple[list[PromptTemplate], list[str]]:
    """The templates that a target is probed with, each once, and a note for `chat` where it has none of its own.

    auto is its own where it was trained to follow that, else none; paper is that of arXiv 2407.08112 for its models,
    else none. Raises ConfigError where no template is left.
    """
    published = target.source.published
    follows = target.template is not None and (published is None or published.chat is not False)
    found: dict[PromptTemplate, None] = {}
    notes: list[str] = []
    for name in names:
        template = NAMED_TEMPLATES.get(name)
        if name == "paper":
            template = NAMED_TEMPLATES["none" if published is None else published.paper_template]
        elif template is None:
            template = target.template if name == "chat" or follows else NO_TEMPLATE
        if template is None:
            notes.append(f"template chat on {target.name}: it has none of its own")
        else:
            found[template] = None
    if not found:
        allowed = f"auto, none or a named template too: {target.name} has no chat template"
        raise ConfigError("probe.templates", list(names), allowed)
    return list(found), notes
