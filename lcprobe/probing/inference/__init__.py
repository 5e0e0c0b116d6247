"""Running a model over prompts: prefill in chunks, shared prefixes, greedy continuation, backing off when memory runs
out.
"""
