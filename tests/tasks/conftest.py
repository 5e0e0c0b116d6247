"""Materials for the tests of tasks: three tokenizers over one corpus, documents of other kinds a tenth of their
size."""

import pytest

from lcprobe.tasks.names import DOCUMENTS
from lcprobe.tasks.text.document_kinds import DOCUMENT_CHARS, document_text
from lcprobe.tasks.text.haystack import Materials, TokenStream
from tests.tasks.sound import TOKENIZERS, of_tokenizer


@pytest.fixture(scope="session")
def small_documents() -> dict[str, str]:
    """A tenth of the text of each kind of document, quick to tokenise."""
    start = DOCUMENT_CHARS // 3
    return {name: document_text(name)[start : start + DOCUMENT_CHARS // 10] for name in DOCUMENTS}


@pytest.fixture(scope="session")
def all_materials(materials) -> dict[str, Materials]:
    """Materials by tokenizer; the corpus alone is given."""
    return {which: of_tokenizer(materials, which) for which in TOKENIZERS}


@pytest.fixture(scope="session")
def all_haystacks(materials, small_documents) -> dict[str, Materials]:
    """Materials of two tokenizers with every haystack."""
    built = {}
    for which in TOKENIZERS[:2]:
        tok = of_tokenizer(materials, which).tokenizer
        built[which] = Materials(tok, TokenStream.from_text("corpus", materials.stream("corpus").text, tok))
        for name, text in small_documents.items():
            built[which]._streams[name] = TokenStream.from_text(name, text, tok)
    return built
