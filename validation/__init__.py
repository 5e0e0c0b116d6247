"""Validation of the instrument, one command each: `python -m validation coverage`, `python -m validation planted`.

    oracles          every encoding and extension against its equation and against peers
    invariances      chunks, forks, packing and padding of every mixer, and of transformers' classes
    exactness        episodes of exactly the requested length that survive encode(decode(ids))
    attacks          no-retrieval policies and learned attackers on every task, and on RULER
    copiers          models that copy by place; null_reports: models that do not differ; parity: a trained check
    planted          models with a known defect, and sound ones, through the whole pipeline
    faults           faults put into real runs: what happened, what was lost
    coverage         every interval of the report on simulated studies
    compiled         kernels compiled without a GPU; mutants: changes to them that the tests should notice

tokenizers.py, questions.py and variants.py build inputs that are shared with the benchmarks and the tests.
"""
