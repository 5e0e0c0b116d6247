"""Episodes: time to build one, share of exact length, share that survives encode(decode(ids)), for several
tokenizers."""

import time
from typing import Any

from lcprobe.data.sources.sotu import speeches
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.niah import NIAH, NIAHConfig
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer
from validation.tokenizers import llama_like, unigram

TITLE = "episodes, milliseconds each"
OPTIONS = ("n", "length", "tokenizers")
CHECKED = 200
"""Episodes whose whole text is encoded again. (Of every episode the joints are.)"""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per tokenizer. options: n (10000), length (8192), tokenizers (paths, comma-separated, besides the
    shipped)."""
    n, length = int(options.get("n", 10_000)), int(options.get("length", 8192))
    tokenizers: dict[str, Tokenizer] = {"shipped": load_tokenizer()}
    given = [path for path in options.get("tokenizers", "").split(",") if path]
    tokenizers |= {path.rsplit("/", 1)[-1]: load_tokenizer(path) for path in given}
    if not given:
        tokenizers |= {"llama-like": llama_like(), "unigram": unigram()}
    text = "\n\n".join(t for i, t in enumerate(speeches()) if i % 12 == 0)
    rows = []
    for name, tok in tokenizers.items():
        begin = time.perf_counter()
        materials = Materials(tok, TokenStream.from_text("corpus", text, tok))
        niah = NIAH(build(NIAHConfig, {"n_keys": 4, "word_pairs": True}, "task"), materials)
        formats = Formats("corpus", "words", "numbers")
        niah.episode(Factors(formats, length, 0.5, n))
        set_up = time.perf_counter() - begin
        begin, exact = time.perf_counter(), 0
        for index in range(n):
            episode = niah.episode(Factors(formats, length, (index % 5) / 4, index))
            exact += len(episode.ids) == length
        spent = time.perf_counter() - begin
        again = sum(
            tok.same_after_round_trip(niah.episode(Factors(formats, length, (i % 5) / 4, i)).ids)
            for i in range(min(n, CHECKED))
        )
        rows.append(
            {
                "tokenizer": name,
                "vocabulary": tok.vocab_size,
                "task": "4 keys, corpus / word pairs / 7 digits",
                "episodes": n,
                "length": length,
                "set-up s": round(set_up, 2),
                "ms an episode": round(1000 * spent / n, 3),
                "exact length": f"{exact / n:.2%}",
                "text comes back": f"{again} of {min(n, CHECKED)}",
            }
        )
    return rows
