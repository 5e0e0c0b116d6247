"""RWKV's World vocabulary as a tokenizer.json encodes as RWKV's own tokenizer does, and decodes to the same text."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprobe.errors import DataError
from lcprobe.tasks.text.rwkv_world import from_world_vocabulary
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer

spec = find_spec("rwkv")
pytestmark = pytest.mark.skipif(spec is None, reason="the package rwkv, which has the vocabulary, is not installed")
MIXED = st.text(alphabet="abZ DEF\n\t .,;!?…。，你é🙂0123-_=\"'()", max_size=60) | st.text(max_size=40)


@pytest.fixture(scope="module")
def vocabulary() -> Path:
    return Path(spec.origin).parent / "rwkv_vocab_v20230424.txt"


@pytest.fixture(scope="module")
def both(vocabulary):
    from rwkv.rwkv_tokenizer import TRIE_TOKENIZER

    return Tokenizer(from_world_vocabulary(vocabulary)), TRIE_TOKENIZER(str(vocabulary))


def test_ids_are_those_of_rwkvs_own_tokenizer(both):
    ours, theirs = both

    @settings(max_examples=100, deadline=None)
    @given(MIXED.filter(lambda text: "<|endoftext|>" not in text))
    def check(text):
        ids = ours.encode(text)
        assert ids.tolist() == theirs.encode(text)
        assert ours.decode(np.asarray(ids)) == text

    check()
    assert (ours.bos_id, ours.vocab_size) == (0, 65530)


def test_a_folder_with_the_vocabulary_is_a_tokenizer(vocabulary, tmp_path):
    shutil.copy(vocabulary, tmp_path)
    assert load_tokenizer(str(tmp_path), "none").bos_id is None


@pytest.mark.parametrize(
    ("lines", "words"),
    [("1 'a' 2", "line 1"), ("1 open('x') 1", "line 1"), ("1 'a b' 3", "reaches over"), ("1 'a' 1", "no entry for")],
)
def test_another_file_is_refused(tmp_path, lines, words):
    path = tmp_path / "rwkv_vocab_x.txt"
    path.write_text(lines)
    with pytest.raises(DataError, match=words):
        from_world_vocabulary(path)
