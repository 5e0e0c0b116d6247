"""Probing: grids of cells, the runner, scoring, the records store; text perplexity and frozen sets of prompts beside
them.
"""
