"""The processes that a sequence is divided over.

context    who they are, and their point-to-point messages
failures   how torch says that one of them is gone
messages   these as differentiable operations, on which `context_parallel` builds
"""
