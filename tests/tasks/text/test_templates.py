"""Prompt templates: episodes of exactly the same length with them, the same samples, BOS once, special tokens as one id each, spans and text
that hold; and chat templates split as transformers renders them."""

import json

import numpy as np
import pytest

from lcprobe.errors import CheckpointError, EpisodeError
from lcprobe.tasks import TASKS
from lcprobe.tasks.assembly import Task
from lcprobe.tasks.episode import Episode, Factors, Formats, Query
from lcprobe.tasks.presets import choose_task
from lcprobe.tasks.text.chat_template import chat_template_of, parse_chat_template
from lcprobe.tasks.text.haystack import MAX_SHIFT, Materials, TokenStream
from lcprobe.tasks.text.templates import NAMED_TEMPLATES, NO_TEMPLATE, PromptTemplate, frame_of
from tests.tasks.text.chat import CHATML, CHATS, GEMMA, MARKS, chat, templates, with_marks

pytestmark = pytest.mark.usefixtures("small_pools")
KINDS = ("instruction", "rwkv", *CHATS)
WRITTEN = {
    "many": {"type": "niah", "n_keys": 3, "n_queries": 2},
    "separate": {"type": "niah", "n_keys": 3, "n_queries": 2, "separate": True},
    "start": {"type": "niah", "question": "start", "template": "line"},
    "gram": {"type": "copying", "ask": "gram"},
    "two_hops": {"type": "qa", "hops": 2},
    "state_tracking": {"type": "state_tracking", "steps": 20},
}
QUESTIONS = {"copying": " Again:", "gram": " Again:", "qa": "?", "two_hops": "?"}
"""What the user's turn ends with, of the tasks that ask in it."""


@pytest.fixture(scope="module")
def materials_of(materials):
    made: dict[str, Materials] = {}

    def of(name: str) -> Materials:
        if name not in made:
            tok = with_marks(name)
            made[name] = Materials(
                tok, TokenStream.from_text("corpus", materials.stream("corpus").text[:200_000], tok)
            )
        return made[name]

    return of


def factors_of(task: Task, control: str = "none") -> Factors:
    formats = task.axes.fitted(Formats("words", "words", "numbers"))
    least = task.shortest(Factors(formats, 1, 0.4, 3, control))
    return Factors(formats, least + 60, 0.4, 3, control)


def check_framed(task: Task, framed: Task, factors: Factors) -> tuple[Episode, Episode]:
    """The sample with a template beside the one without."""
    tok, frame = framed.materials.tokenizer, framed.materials.frame
    before, between = frame.before.tolist(), frame.between.tolist()
    base, e = task.episode(factors), framed.episode(factors)
    assert len(e.ids) == len(base.ids) == factors.length
    first = 0 if tok.bos_id is None else 1
    assert e.ids[:first].tolist() == base.ids[:first].tolist()
    assert tok.bos_id not in e.ids[first:].tolist()
    assert e.ids[first : first + len(before)].tolist() == before
    assert abs(e.haystack_start - base.haystack_start) <= MAX_SHIFT
    assert len(e.queries) == len(base.queries)
    assert len(e.needles) == len(base.needles)
    lines = factors.formats.haystack == "needles"  # there are fewer lines to choose from
    for number, (q, without) in enumerate(zip(e.queries, base.queries, strict=True)):
        assert (q.key, q.answer) == (without.key, without.answer)
        assert lines or q.chance == without.chance
        assert lines or [c.tolist() for c in q.candidates] == [c.tolist() for c in without.candidates]
        check_turn(e.sequence(q), base.sequence(without), q, without, between, number == 0 or q.own is not None)
        assert (q.needle is None) == (without.needle is None)
        if q.needle is not None and q.distance is not None and without.needle is not None:
            at = slice(q.needle, q.start - q.distance)
            assert e.ids[at].tolist() == base.ids[without.needle : without.start - (without.distance or 0)].tolist()
    for span, without in zip(e.needles, base.needles, strict=True):
        assert lines or np.array_equal(e.ids[slice(*span)], base.ids[slice(*without)])
    return base, e


def check_turn(ids: np.ndarray, base: np.ndarray, q: Query, without: Query, between: list[int], turn: bool) -> None:
    """The same words before the answer, with `between` somewhere in them, once; the same answer."""
    assert ids[q.start : q.stop].tolist() == base[without.start : without.stop].tolist()
    body = ids[: q.start].tolist()
    found = [at for at in range(len(body)) if body[at : at + len(between)] == between]
    assert found
    if turn:
        prefix = body[found[-1] + len(between) :]
        assert len(prefix) < 48, "no haystack in the assistant's turn"
        assert base[without.start - len(prefix) : without.start].tolist() == prefix


@pytest.mark.parametrize("name", dict.fromkeys([*TASKS, *WRITTEN]))
@pytest.mark.parametrize("kind", KINDS)
def test_a_template_leaves_the_sample_as_it_is(name, kind, materials_of):
    for which in ("shipped", "llama") if kind in ("instruction", "gemma") else ("shipped",):
        own = materials_of(which)
        template = templates(own.tokenizer)[kind]
        choice = choose_task(WRITTEN.get(name, name), "task")
        task, framed = choice.create(own), choice.create(own.with_template(template))
        _, e = check_framed(task, framed, factors_of(framed))
        q = e.queries[0]
        prompt = own.tokenizer.decode(e.sequence(q)[: q.start])
        user, _, prefix = prompt.rpartition(
            own.tokenizer.decode(own.with_template(template).frame.between).strip(" ")
        )
        if name in QUESTIONS:
            assert user.rstrip(" ").endswith(QUESTIONS[name])
        assert q.key.split()[-1] in prefix + user
        assert framed.shortest(factors_of(framed)) == task.shortest(factors_of(task)) + room(framed)


def room(task: Task) -> int:
    frame = task.materials.frame
    return len(frame.before) + len(frame.between)


@pytest.mark.parametrize("which", ["prefix", "lines", "unigram"])
@pytest.mark.parametrize("kind", ["rwkv", "gemma", "llama"])
def test_other_tokenizers_read_a_template_as_its_text(kind, which, materials_of):
    own = materials_of(which)
    template = templates(own.tokenizer)[kind]
    if (which, kind) == ("unigram", "llama"):
        with pytest.raises(EpisodeError, match="does not give back its text"):  # it has no square brackets
            frame_of(template, own.tokenizer)
        return
    for written in ({"type": "niah", "n_keys": 2}, {"type": "qa", "labels": 2}):
        choice = choose_task(written, "task")
        task, framed = choice.create(own), choice.create(own.with_template(template))
        for control in ("none", "zero_distance"):
            check_framed(task, framed, factors_of(framed, control))


def test_special_tokens_are_one_id_each_and_bos_is_there_once(materials_of):
    for which in ("shipped", "llama", "unigram", "lines"):
        tok = with_marks(which)
        frame = frame_of(chat("gemma", tok), tok)
        ids = [*frame.before.tolist(), *frame.between.tolist()]
        opens, ends = (tok.encode(mark).tolist() for mark in MARKS[:2])
        assert len(opens) == len(ends) == 1
        assert ids.count(opens[0]) == 2
        assert ids.count(ends[0]) == 1
        assert tok.bos_id not in ids
        assert {*opens, *ends} <= frame.marks


def test_spaces_at_the_joints_belong_to_the_prompt():
    tok = with_marks("shipped")
    frame = frame_of(chat("llama", tok), tok)
    assert tok.decode(frame.before) == "[INST]"
    assert tok.decode(frame.between) == " [/INST]"


def test_line_breaks_that_merge_with_a_full_stop_come_after_a_space():
    tok = with_marks("lines")
    assert len(tok.encode("a.\n\n")) < len(tok.encode("a.")) + len(tok.encode("\n\n")), "this tokenizer merges them"
    assert tok.decode(frame_of(NAMED_TEMPLATES["rwkv"], tok).between) == " \n\nAssistant:"
    assert tok.decode(frame_of(chat("gemma", tok), tok).between).startswith("<end_of_turn>\n")


def test_streams_are_shared_with_the_materials_without_a_template(materials):
    framed = materials.with_template(NAMED_TEMPLATES["rwkv"])
    assert framed.stream("words") is materials.stream("words")
    assert framed.stream("corpus") is materials.stream("corpus")
    assert materials.with_template(NO_TEMPLATE) is materials
    assert framed.with_template(NO_TEMPLATE).frame.before.size == 0


@pytest.mark.parametrize("which", ["shipped", "llama"])
def test_ids_are_those_of_transformers(which, materials_of):
    transformers = pytest.importorskip("transformers")
    own = materials_of(which)
    tok = own.tokenizer
    framed = choose_task("qa", "task").create(own.with_template(chat("chatml", tok)))
    e = framed.episode(factors_of(framed))
    q, frame = e.queries[0], framed.materials.frame
    text = tok.decode(e.ids[1 : q.start])
    start = len(tok.decode(frame.before))
    content, _, prefix = text[start:].rpartition(tok.decode(frame.between).strip(" "))
    peer = transformers.PreTrainedTokenizerFast(tokenizer_object=tok._inner, chat_template=CHATML)
    rendered = peer.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=False,
    )  # fmt: skip
    assert peer(rendered + prefix, add_special_tokens=False)["input_ids"] == e.ids[1 : q.start].tolist()


def test_a_template_is_split_as_transformers_renders_it():
    transformers = pytest.importorskip("transformers")
    tok = with_marks("shipped")
    for text in CHATS.values():
        peer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tok._inner, chat_template=text, bos_token="<|bos|>"
        )
        rendered = peer.apply_chat_template(
            [{"role": "user", "content": "so"}], add_generation_prompt=True, tokenize=False
        )
        template = parse_chat_template(text, {"bos_token": "<|bos|>"}, set(MARKS), "here")
        assert template.before + "so" + template.between == rendered


def test_a_chat_template_is_read_from_a_models_folder(tmp_path):
    assert chat_template_of(tmp_path) is None
    added = {"7": {"content": "<end_of_turn>", "special": True}, "8": {"content": "<unused>"}}
    config = {"bos_token": {"content": "<bos>"}, "added_tokens_decoder": added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert chat_template_of(tmp_path) is None
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": GEMMA}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": several}))
    template = chat_template_of(tmp_path)
    turns = "<bos><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"
    assert template == PromptTemplate("chat", *turns, ("<end_of_turn>",))
    (tmp_path / "chat_template.jinja").write_text("{{ strftime_now('%Y') }} {{ messages[0].content }}.")
    assert chat_template_of(tmp_path) == PromptTemplate("chat", "2024 ", ".")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ raise_exception('no system') }}", "fails \\(no system\\)"),
        ("{% for m in messages %}", "fails"),
        ("{{ ''.__class__.__mro__ }}", "fails"),
        ("nothing", "has the user's message 0 times"),
        ("{{ messages[0].content }} {{ messages[0].content }}", "has the user's message 2 times"),
    ],
)
def test_a_template_that_fails_is_one_line(text, reason):
    with pytest.raises(CheckpointError, match=f"^here: its chat template {reason}.*; allowed: ") as caught:
        parse_chat_template(text, {}, set(), "here")
    assert "\n" not in str(caught.value)


def test_a_special_token_that_the_tokenizer_lacks_is_refused(tokenizer):
    template = PromptTemplate("chat", "<|im_start|>user\n", "<|im_end|>", ("<|im_start|>",))
    with pytest.raises(EpisodeError, match="probe.templates: given .chat with a tokenizer that has no token"):
        frame_of(template, tokenizer)
