"""A model's own chat template: the Jinja text beside its tokenizer, split into a `PromptTemplate`.

It is rendered once, with a mark as the only message of the user and the assistant's turn opened, in Jinja's sandbox
as transformers does it; what is before the mark and what is after it are the two texts. `tokenizer_config.json` has
it as `chat_template`, or `chat_template.jinja` is it.
"""

import json
from pathlib import Path
from typing import Any, ClassVar

from lcprobe.errors import CheckpointError
from lcprobe.tasks.text.templates import PromptTemplate

MARK = "LCPROBEPROMPT"
MAX_CHARS = 1 << 20
"""Characters of a template at most."""
DATE = (2024, 7, 26)
"""Today's date in templates that write one, so that a prompt does not depend on the day: Llama 3's own default."""
CONFIG, TEXT = "tokenizer_config.json", "chat_template.jinja"


def chat_template_of(folder: Path) -> PromptTemplate | None:
    """The chat template of a folder with a tokenizer; None where there is none, as for base models. Raises
    CheckpointError, in one line, for files that cannot be read and a template that fails."""
    config = _config(folder / CONFIG)
    text = _read(folder / TEXT) if (folder / TEXT).is_file() else _named(config.get("chat_template"), folder)
    if text is None:
        return None
    special = {name: token for name in ("bos_token", "eos_token") if (token := _content(config.get(name)))}
    added = config.get("added_tokens_decoder")
    listed = added.values() if isinstance(added, dict) else ()
    marks = {content for token in listed if (content := _content(token))}
    return parse_chat_template(text, special, marks, str(folder))


def parse_chat_template(text: str, special: dict[str, str], marks: set[str], where: str) -> PromptTemplate:
    """A template from its Jinja text. special: bos_token and eos_token, where it writes them. marks: texts that are
    one token each. where: for messages. Raises CheckpointError for a template that fails or drops the prompt."""
    if len(text) > MAX_CHARS:
        raise CheckpointError(f"{where}: a chat template of {len(text)} characters; allowed: at most {MAX_CHARS}")
    user = {"role": "user", "content": MARK}
    rendered = _rendered(text, [user], special, where)
    if rendered.count(MARK) != 1:
        given = f"its chat template has the user's message {rendered.count(MARK)} times"
        raise CheckpointError(f"{where}: {given}; allowed: once (or probe.templates=[none])")
    before, between = rendered.split(MARK)
    return PromptTemplate("chat", before, between, tuple(sorted(mark for mark in marks if mark in before + between)))


def _rendered(text: str, messages: list[dict[str, str]], special: dict[str, str], where: str) -> str:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
    from jinja2 import nodes

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks what the assistant writes, for training; it changes no text."""

        tags: ClassVar[set[str]] = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def date(form: str) -> str:
        from datetime import datetime

        return datetime(*DATE).strftime(form)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    extensions = [Generation, jinja2.ext.loopcontrols]
    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=extensions
    )
    sandbox.filters["tojson"] = to_json
    sandbox.globals |= {"raise_exception": refuse, "strftime_now": date}
    given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True, **special}
    try:
        return sandbox.from_string(text).render(**given)
    except Exception as error:  # a template is a program: anything may fail in it
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{where}: its chat template fails ({reason}); allowed: one that takes a message of the user alone "
            "(or probe.templates=[none])"
        ) from None


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read(path))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object; allowed: a tokenizer_config.json")
    return content


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable ({error}); allowed: a text file in UTF-8") from None


def _named(template: Any, folder: Path) -> str | None:
    """The text of a template, or of the one named `default` among several."""
    if isinstance(template, list):
        by_name = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = by_name.get("default")
    if template is None or isinstance(template, str):
        return template
    raise CheckpointError(f"{folder / CONFIG}: chat_template is no text; allowed: a Jinja template")


def _content(token: Any) -> str:
    """The text of a token that is written as text or as a mapping; empty: there is none."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""
