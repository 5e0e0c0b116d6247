"""Preparing a corpus: one process reads and writes in the order of the documents, others encode.

chunks.py            documents -> chunks of text, in order
encoding.py          a chunk of text -> tokens; words that were seen before are looked up
held_out.py          the text that is compared with
pool.py, worker.py   chunks encoded by processes, results in order
writing.py           shards, starts, haystacks, and where they end: a killed preparation goes on from there
build.py             all of it
"""
