"""Episodes of a report: prompts are those of the records, cut into pieces that join to the text, with every mark where
the task put it; what cannot be built again is not shown."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lcprobe.analysis.episodes import MAX_EPISODES, ShownEpisode, choose_episodes
from lcprobe.analysis.report.page.document import page_environment
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.runner import ProbedCheckpoint, run_plan
from lcprobe.probing.scoring import Item, Score, scored_text
from lcprobe.probing.store import MemoryStore
from lcprobe.schema import build
from lcprobe.studies.evaluation.reporting.episodes import shown_episodes
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.text.haystack import Materials
from tests.analysis.fabricated import FORMAT, plan, records, run, study, task, window, with_column

TASKS = {
    "keys": {"type": "niah", "n_keys": 4, "template": "line", "digits": 3},
    "first": {"type": "niah", "n_keys": 4, "question": "start", "digits": 3},
    "hops": {"type": "vt"},
    "words": {"type": "fwe"},
}


class Nearest:
    """Prints the value that is next to the question, whatever is asked."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def score(self, items: list[Item]) -> list[Score]:
        scores = []
        for item in items:
            near = item.query.distance is not None and item.query.distance < 60
            other = item.query.candidates[-1]
            text = item.query.answer if near else self.tokenizer.text_of(other).strip()
            scores.append(scored_text(item, text, self.tokenizer))
        return scores


@pytest.fixture(scope="module")
def probed(materials: Materials):
    config = build(ProbeConfig, {"tasks": TASKS}, "probe")
    tasks = TaskSet(config, materials)
    grid = build(Grid, {"lengths": ["192t", "640t"], "depths": 3, "n": 6, "haystack": ["corpus"]}, "grid")
    planned, store = tasks.plan([grid]), MemoryStore()
    tables = [
        store.read(run_plan(planned, tasks, Nearest(tasks.tokenizer), ProbedCheckpoint(name, name, 0, 0), store))
        for name in ("a", "b")
    ]
    cells = [row for unit in planned.units for row in unit.rows()]
    facts = study([run(name, context_length=192) for name in ("a", "b")], [task(n) for n in TASKS], cells)
    return tasks, facts, pa.concat_tables(tables)


@pytest.fixture(scope="module")
def shown(probed):
    tasks, facts, table = probed
    return shown_episodes(facts, table, lambda model: tasks)


def episode_of(tasks: TaskSet, one: ShownEpisode):
    row = one.row
    formats = Formats(row["haystack"], row["key_format"], row["value_format"])
    return tasks.by_name[row["task"]].episode(Factors(formats, row["length"], row["drawn_depth"], row["index"]))


def test_right_and_wrong_answers_of_every_model_and_task_at_both_lengths(shown):
    assert shown.left_out == ()
    found = {(e.row["task"], e.row["model"], e.row["length"], e.right) for e in shown.episodes}
    assert len(shown.episodes) <= MAX_EPISODES
    for name in ("a", "b"):
        assert {("keys", name, length, right) for length in (192, 640) for right in (True, False)} <= found
    samples = {model: [e.row["index"] for e in shown.episodes if e.row["model"] == model] for model in "ab"}
    assert samples["a"] == samples["b"], "models that fail alike are shown at the same samples"


def test_pieces_are_the_prompt_in_order_and_every_mark_is_where_it_is(probed, shown):
    tasks = probed[0]
    for one in shown.episodes:
        episode, row = episode_of(tasks, one), one.row
        query = episode.queries[row["query"]]
        prompt = tasks.tokenizer.text_of(episode.ids[1 : query.start])
        at = 0
        for piece in one.pieces:
            if piece.kind != "gap":
                at = prompt.index(piece.text, at) + len(piece.text)
        assert at == len(prompt), "the end is shown"
        kinds = [piece.kind for piece in one.pieces]
        assert "question" in kinds
        assert one.pieces[-1].kind == "question" or row["task"] in ("hops", "words")
        values = [piece.text for piece in one.pieces if piece.kind == "value"]
        if row["task"] in ("keys", "first"):
            assert values == [row["answer"]]
            assert one.n_distractors == kinds.count("distractor") + kinds.count("picked") == 3
            asked = "".join(piece.text for piece in one.pieces if piece.kind == "question")
            assert query.key in asked
            picked = [piece.text for piece in one.pieces if piece.kind == "picked"]
            assert len(picked) == (not one.right)
            assert all(row["prediction"] in text for text in picked)
        if row["task"] == "hops":
            assert kinds.count("fact") == len(query.via)


def test_a_long_prompt_is_shortened_around_what_is_marked(shown):
    long = [e for e in shown.episodes if e.row["length"] == 640 and e.row["task"] == "keys"]
    for one in long:
        hidden = sum(int(p.text.split()[0].replace(",", "")) for p in one.pieces if p.kind == "gap")
        assert hidden > 200
        marked = {"target", "value", "distractor", "picked", "question"}
        for left, right in zip(one.pieces, one.pieces[1:], strict=False):
            assert not {left.kind, right.kind} & marked or "gap" not in (left.kind, right.kind), (
                "its neighbours are shown"
            )


def test_what_is_another_prompt_now_is_left_out_with_a_reason(probed):
    tasks, facts, table = probed
    wrong = with_column(table, "episode", ["0" * 32] * len(table))
    gone = with_column(
        table, "task", np.where(np.array(table["task"].to_pylist()) == "keys", "mine", table["task"].to_pylist())
    )
    cells = [{**cell, "task": "mine" if cell["task"] == "keys" else cell["task"]} for cell in facts.expected_cells]
    shown = shown_episodes(facts, wrong, lambda model: tasks)
    assert shown.episodes == ()
    assert any("keys: the prompt that is built now is another one" in note for note in shown.left_out)
    shown = shown_episodes(replace(facts, expected_cells=cells), gone, lambda model: tasks)
    assert any("mine is no task" in note for note in shown.left_out)
    assert {e.row["task"] for e in shown.episodes} == {"first", "hops", "words"}


def test_the_choice_is_the_same_for_records_in_another_order_and_prefers_wrong_answers():
    runs = [run(f"m{i}", group=f"g{i // 2}", seed=i % 2, context_length=64) for i in range(30)]
    cells = plan(["t", "u"], lengths=[64, 128, 256], n=4)
    table = records({r.name: window(100) for r in runs}, cells)
    chosen = choose_episodes(table, runs, cells)
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(len(table))))
    assert choose_episodes(shuffled, runs, cells) == chosen
    assert len(chosen) == MAX_EPISODES
    assert {c.row["model"] for c in chosen} == {f"m{i}" for i in range(0, 30, 2)}, "one seed of every model"
    assert {c.row["length"] for c in chosen if not c.row["exact"]} == {128}, "where something is lost first"
    assert sum(not c.row["exact"] for c in chosen) == 30
    assert {(c.row["haystack"], c.row["key_format"], c.row["value_format"]) for c in chosen} == {FORMAT}


def test_the_page_escapes_whatever_a_prompt_has(shown):
    hostile = "<script>alert(1)</script>"
    one = shown.episodes[0]
    row = {**one.row, "answer": hostile, "prediction": hostile, "model": hostile, "task": hostile}
    pieces = tuple(replace(piece, text=hostile) for piece in one.pieces)
    html = page_environment().get_template("episodes.html.j2").render(
        episodes=replace(shown, episodes=(replace(one, row=row, pieces=pieces),), left_out=(hostile,))
    )  # fmt: skip
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= len(pieces) + 6
    assert "http" not in html
