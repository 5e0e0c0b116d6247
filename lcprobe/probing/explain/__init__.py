"""Why somebody else's number for a model differs from ours: one measurement, and many with one thing changed.

protocol      everything that a number depends on besides model, task and length
scorers       from a continuation to a score
prompts       the samples that a protocol reads
measure       continuations of a model under many protocols, each prompt read once
conditions    the protocols that differ from a given one in one thing, by cause
outputs       somebody's own prompts and continuations, looked at directly
"""
