"""The sentence about continued runs."""

from lcprobe.analysis.report.continued import continued
from tests.analysis.fabricated import run


def test_continued_runs_are_named_with_their_source_extension_and_total():
    base = run("L64-rope", tokens=1_000)
    first = run(
        "L256-rope", tokens=2_000, started_from="L64-rope", trained_extension="yarn(factor=4)", tokens_before=1_000
    )
    other = run("L256-mamba2", tokens=2_000, started_from="runs/earlier/mamba2")
    method = run("L256-rope+window", extension="window", started_from="L64-rope", base="L256-rope")
    (sentence,) = continued([base, first, other, method])
    assert sentence.warning
    assert "L256-rope from L64-rope with yarn(factor=4) (3,000 tokens in total)" in sentence.text
    assert "L256-mamba2 from runs/earlier/mamba2 without an extension (total tokens unknown)" in sentence.text
    assert "window" not in sentence.text
    assert not list(continued([base]))
