"""The tiny study of tests/baseline gives what it gave when its file was written: weights, episodes and records, to the bit."""

import pytest

from lcprobe.files import read_json
from tests.baseline import FILE, machine, measure, python_version


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return measure(tmp_path_factory.mktemp("baseline")), read_json(FILE)


def test_every_episode_has_the_same_tokens(both):
    measured, kept = both
    if kept["python"] != python_version():  # the haystack is the interpreter's own library
        for side in both:
            side["episodes"].pop("niah_python")
    assert measured["episodes"] == kept["episodes"]


def test_final_weights_are_the_same(both):
    measured, kept = both
    assert measured["weights"].keys() == kept["weights"].keys()
    for run, weights in kept["weights"].items():
        assert measured["weights"][run]["norms"] == pytest.approx(weights["norms"], rel=1e-3), run
        if kept["machine"] == machine():
            assert measured["weights"][run]["digest"] == weights["digest"], run


def test_records_are_the_same(both):
    measured, kept = both
    assert measured["records"].keys() == kept["records"].keys()
    for run, records in kept["records"].items():
        assert measured["records"][run]["n"] == records["n"]
        if kept["python"] == python_version():
            assert measured["records"][run]["scores"] == pytest.approx(records["scores"], rel=1e-2, abs=0.01), run
            if kept["machine"] == machine():
                assert measured["records"][run]["digest"] == records["digest"], run
