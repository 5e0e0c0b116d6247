"""Tokenizers that put a space before every text, or fold letters: what is asked is what they can express, and strings
that they make equal count as equal. One whose tokens do not tell words apart is refused by that name."""

import pytest

from lcprobe.errors import EpisodeError
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import task_sets
from lcprobe.schema import build
from lcprobe.studies.planning.preflight import check_probes_fit
from lcprobe.tasks import TASKS
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.presets import choose_task
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import load_tokenizer
from tests.tasks.checks import check_exact
from validation.tokenizers import byte_level, llama_like, word_piece

pytestmark = pytest.mark.usefixtures("small_pools")
KINDS = {"prefix": (True, False), "lower": (False, True), "both": (True, True)}
TEXT = " The Falcon met Café Zürich's owl; ONE 1848 FALCON-owl."


@pytest.fixture(scope="module")
def own_materials(materials, small_documents):
    """Materials of the three tokenizers, over one corpus and one kind of document with every sign."""
    built = {}
    for name, which in KINDS.items():
        tok = byte_level(*which)
        built[name] = Materials(tok, TokenStream.from_text("corpus", materials.stream("corpus").text[:300_000], tok))
        assert tok.lost(small_documents["json", "probe"]) == []
        text = small_documents["json", "probe"][:40_000]
        built[name]._streams["json", "probe"] = TokenStream.from_text("json", text, tok)
    return built


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_given_back_as_it_is_expressed(kind):
    prefix_space, lower_case = KINDS[kind]
    tok = byte_level(*KINDS[kind])
    assert tok.folds == lower_case
    expressed = tok.expressed(TEXT)
    assert (expressed == TEXT) != lower_case
    assert not lower_case or expressed == " the falcon met cafe zurich's owl; one 1848 falcon-owl."
    assert tok.expressed(expressed) == expressed
    assert tok.text_of(tok.piece(TEXT)) == expressed
    assert tok.text_of(tok.piece(TEXT)[2:]) == expressed[len(tok.text_of(tok.piece(TEXT)[:2])) :]
    assert tok.encode(expressed).tolist() == tok.encode(TEXT).tolist()
    assert tok.decode(tok.encode(TEXT[1:])).startswith(" ") == prefix_space


def test_tokenizers_with_ways_of_their_own_with_spaces_fold_nothing():
    for tok in (load_tokenizer(), llama_like(), byte_level(True, False)):
        assert not tok.folds
        assert tok.expressed(TEXT) is TEXT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TASKS)
def test_every_task_asks_what_the_tokenizer_can_express(own_materials, kind, name):
    materials = own_materials[kind]
    tok, task = materials.tokenizer, choose_task(name, "task").create(materials)
    for haystack in ("corpus", "json"):
        formats = task.axes.fitted(Formats(haystack, "words", "numbers"))
        for index in range(3):
            episode = check_exact(task, tok, Factors(formats, 700, 0.5, index))
            for query in episode.queries:
                assert query.answer == tok.expressed(query.answer)
                assert query.key == tok.expressed(query.key)
                assert not (name == "semantic" and query.answer.islower() != KINDS[kind][1])


@pytest.mark.parametrize("kind", KINDS)
def test_strings_that_the_tokenizer_makes_equal_are_found_in_the_haystack(kind):
    tok = byte_level(*KINDS[kind])
    stream = TokenStream.from_text("corpus", TEXT * 20, tok)
    for string in ("Falcon", "ONE", "Zürich", "FALCON-owl"):
        assert stream.free_run(string, 0) < len(stream)
    found = stream.free_run("falcon", 0) < len(stream)
    assert found == KINDS[kind][1]


def test_a_tokenizer_without_spaces_is_refused_at_once_and_by_its_name(tmp_path, materials):
    (tmp_path / "bert.json").write_text(word_piece().json_text)
    probe = build(
        ProbeConfig, {"tasks": {"niah": {"type": "niah"}}, "grids": [{"lengths": ["256t"], "n": 2}]}, "probe"
    )
    with pytest.raises(
        EpisodeError,
        match=r"^data\.tokenizer: given 'a WordPiece tokenizer, which drops spaces'; .*bert",
    ):
        check_probes_fit(probe, str(tmp_path / "bert.json"), None, [256])


def test_the_same_text_in_both_cases_is_refused_by_name_and_with_a_space_before_it_is_not(materials):
    def plan(*tokenizers):
        own = [Materials(tok, TokenStream.from_text("corpus", TEXT * 400, tok)) for tok in tokenizers]
        config = build(ProbeConfig, {"tasks": {"niah": {"type": "niah"}}, "equal_length": "text"}, "probe")
        sets = task_sets(config, own, ["one", "other"])
        units = sets[0].plan([build(Grid, {"lengths": ["256t"], "depths": 1, "n": 2}, "grid")], 256).units
        return [one.episodes(units[0]) for one in sets]

    first, second = plan(load_tokenizer(), byte_level(True, False))
    assert [e.queries[0].answer for e in first] == [e.queries[0].answer for e in second]
    with pytest.raises(EpisodeError, match="^probe.equal_length: .*with other, one that changes the text"):
        plan(load_tokenizer(), byte_level(False, True))
