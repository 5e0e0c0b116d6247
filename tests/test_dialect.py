"""What is written is read back as it was, by lcprobe and by other readers of YAML."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lcprobe.config import load, to_yaml
from lcprobe.dialect import read_yaml, write_yaml

LOOK_ALIKES = [
    "0o17", "08", "0b1", "-0x1", "1e3", "1.0e+3", "1E5", "007", "0x10", "1_000", "1:30", ".5", "5.", "-.inf", ".nan", "on", "Off", "yes", "No", "y", "n",
    "true", "null", "~", "", " a", "2026-11-30", "=", "<<", "!x", "&a", "*a", "#", "a: b", "- a", "a #b", "${x}", "\\${x}", "é", "\n",
]  # fmt: skip
TEXT = st.one_of(
    st.sampled_from(LOOK_ALIKES), st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=6)
)
SCALARS = st.one_of(TEXT, st.integers(-(10**6), 10**6), st.booleans(), st.none(), st.floats(allow_nan=False))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(TEXT, VALUES, max_size=3))
def test_what_is_written_is_read_back(mapping):
    text = write_yaml(mapping)
    assert read_yaml(text) == mapping
    assert yaml.safe_load(text) == mapping


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_a_text_survives_the_copy_beside_a_run(tmp_path, text):
    mapping = {"track": {"tags": [text]}, "grid": {"rope": {text: {"seed": 1}}}}
    (tmp_path / "copy.yaml").write_text(to_yaml(mapping))
    again = load([str(tmp_path / "copy.yaml")], [])
    assert again["track"] == mapping["track"]
    assert again["grid"] == mapping["grid"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"), ("off", "off"), ("yes", "yes"), ("No", "No"), ("true", True), ("False", False), ("1e3", 1000.0), ("1e-5", 1e-5),
        ("5", 5), ("-.5", -0.5), ("1.5e3", 1500.0), ("1_000", 1000), (".inf", float("inf")), ("2026-11-30", "2026-11-30"), ("null", None),
        ("~", None), ("017", 17), ("-08", -8), ("0o17", 15), ("0x1F", 31), ("+3", 3), ("1:30", "1:30"), ("0b1", "0b1"),
        ("190:20:30", "190:20:30"), ("-0x1", "-0x1"), ("0o8", "0o8"), ("'1e3'", "1e3"), ('"on"', "on"), ("e3", "e3"), ("1e", "1e"), (".", "."),
    ],
)  # fmt: skip
def test_values_as_they_are_written(written, value):
    assert read_yaml(f"key: {written}") == {"key": value}


@pytest.mark.parametrize(
    "label", ["on", "off", "no", "yes", "1e3", "007", "0x10", "1_000", "64", "true", "null", "2026-11-30"]
)
def test_keys_are_texts_as_they_are_written(label):
    assert read_yaml(f"{label}: 1") == {label: 1}


def test_merge_keys_and_anchors_work():
    assert read_yaml("a: &a {x: 1, on: 2}\nb: {<<: *a, x: 3}") == {"a": {"x": 1, "on": 2}, "b": {"x": 3, "on": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!binary aGk=",
        "a: !!set {x}",
        "a: !!python/name:os.system",
        "a: !x 1",
        "a: 1\na: 2",
        "[a]: 1",
        "? {a: b}\n: 1",
    ],
)
def test_tags_and_keys_that_are_no_texts_are_refused(text):
    with pytest.raises(yaml.constructor.ConstructorError):
        read_yaml(text)
