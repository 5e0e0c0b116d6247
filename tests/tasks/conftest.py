"""Materials for the tests of tasks: three tokenizers over one corpus, documents of other kinds a tenth of their
size."""

import pytest

from lcprobe.tasks.names import DOCUMENTS, Split
from lcprobe.tasks.parts import distractor_lines
from lcprobe.tasks.text.document_kinds import DOCUMENT_CHARS, SPLITS, document_text
from lcprobe.tasks.text.haystack import Materials, TokenStream
from tests.tasks.checks import TOKENIZERS, materials_for


@pytest.fixture(scope="session")
def small_documents() -> dict[tuple[str, Split], str]:
    """A tenth of the text of each kind of document, for each split, quick to tokenise."""
    part = slice(DOCUMENT_CHARS // 3, DOCUMENT_CHARS // 3 + DOCUMENT_CHARS // 10)
    return {(name, split): document_text(name, split)[part] for name in DOCUMENTS for split in SPLITS}


@pytest.fixture(scope="session")
def all_materials(materials) -> dict[str, Materials]:
    """Materials by tokenizer; the corpus alone is given."""
    return {which: materials_for(materials, which) for which in TOKENIZERS}


@pytest.fixture(scope="session")
def all_haystacks(materials, small_documents) -> dict[str, Materials]:
    """Materials of two tokenizers with every haystack; for training of the first alone."""
    built = {}
    for which in TOKENIZERS[:2]:
        tok = materials_for(materials, which).tokenizer
        built[which] = Materials(tok, TokenStream.from_text("corpus", materials.stream("corpus").text, tok))
        for (name, split), text in small_documents.items():
            if split == "probe" or which == TOKENIZERS[0]:
                built[which]._streams[name, split] = TokenStream.from_text(name, text, tok)
    return built


@pytest.fixture(scope="module")
def small_pools():
    """Pools of a few strings: drawing all of a format's is most of what short tests of tasks would take."""
    caches = distractor_lines.line_bank, distractor_lines._pool
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distractor_lines, "STRING_POOL", 1 << 11)
        patch.setattr(distractor_lines, "UUID_POOL", 1 << 10)
        for cache in caches:
            cache.cache_clear()
        yield
    for cache in caches:
        cache.cache_clear()
