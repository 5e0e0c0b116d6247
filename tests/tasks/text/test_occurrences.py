"""The index of where many strings occur in a text: what a search for each of them says."""

import numpy as np
import pytest

from lcprobe.seeds import Stream
from lcprobe.tasks.text.formats import StringFormat, candidates

FORMS = [
    StringFormat("numbers", 1),
    StringFormat("numbers", 2),
    StringFormat("numbers", 3),
    StringFormat("hex", 2),
    StringFormat("words"),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("text", ["corpus", "noise", "words"])
def test_the_index_says_of_every_string_what_a_search_says(materials, form, text):
    stream = materials.stream(text)
    strings = list(candidates(form, Stream("all", str(form)), materials.tokenizer))
    found = stream.occurrences({string: i for i, string in enumerate(strings)})
    assert found.numbers.tolist() == [i for i, string in enumerate(strings) if stream.count(string)]
    for offset in (0, 1, len(stream) // 3, len(stream) - 1):
        runs = dict(zip(found.numbers.tolist(), found.free_runs(offset).tolist(), strict=True))
        searched = [stream.free_run(string, offset) for string in strings]
        assert [runs.get(i, len(stream)) for i in range(len(strings))] == searched


def test_of_no_strings_none_occur(materials):
    found = materials.stream("corpus").occurrences({})
    assert len(found.numbers) == 0
    assert np.array_equal(found.free_runs(3), [])
