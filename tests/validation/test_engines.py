"""The table of engines: what the validation measured holds what the documentation says of it."""

import json
from pathlib import Path

import numpy as np
import torch

from lcprobe.probing.engines.transformers_folder import transformers_model
from lcprobe.probing.inference.continuation import Continuer
from validation.engines import CAUGHT, OURS, Counted, PlainForward
from validation.invariances.peer_models import tiny

RESULTS = Path(__file__).resolve().parents[2] / "validation" / "results" / "engines-cpu.json"


def test_every_engine_gives_the_numbers_of_full_forward_passes():
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    assert {row["checkpoint"] for row in rows} == {*OURS, *CAUGHT}
    assert {row["engine"] for row in rows if row["checkpoint"] == "llama"} >= {"native", "transformers"}
    for row in rows:
        kept, off = row["engine"].endswith("kept"), "off by" in row["engine"]
        assert (float(row["max |dlogprob|"]) < 1e-5) == (not kept and not off), row
        assert row["same scores"] == "20 of 20" or kept
        assert row["gate"].startswith("refused") == off
        reads_again = row["engine"] == "transformers" and row["checkpoint"] in CAUGHT
        assert ("read again" in row["note"]) == reads_again
        shares = row["engine"] == "native" or (row["engine"].startswith("transformers") and not reads_again)
        assert (row["tokens read"] < row["prompts"]) == shares


def test_the_oracle_is_one_forward_pass_for_every_token(tmp_path):
    """Of the engine that is compared with it, too: a model with a state and a counter around it."""
    tiny("llama").save_pretrained(tmp_path)
    engine = transformers_model(tmp_path, torch.float32, "cpu")
    counted = Counted(engine)
    prompts, steps = [[1, 2, 3, 4, 5], [6, 7]], [3, 2]
    plain, cached = PlainForward(engine.model), Continuer(counted, "cpu", 4, 100)
    assert plain.greedy(prompts, steps, lambda *_: False) == cached.greedy(prompts, steps, lambda *_: False)
    assert counted.tokens == (5 + 2) + (2 + 1), "prompts, and what is decoded but for the last of each"
    for (a, hit), (b, same) in zip(
        *(way.likelihoods([(p, [8, 9]) for p in prompts]) for way in (plain, cached)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert hit.tolist() == same.tolist()
