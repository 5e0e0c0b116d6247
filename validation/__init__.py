"""Validation of the instrument, one command each: `python -m validation coverage`, `python -m validation planted`.

    oracles          every encoding and extension against its equation and against peers
    exactness        episodes of exactly the requested length that survive encode(decode(ids))
    cheating         no-retrieval policies on every task; cheating_peer: on lm-eval's RULER
    planted          models with a known defect, and sound ones, through the whole pipeline
    coverage         every interval of the report on simulated studies

tokenizers.py, questions.py and variants.py build inputs that are shared with the benchmarks and the tests.
"""
