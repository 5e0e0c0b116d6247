"""Samples of a grid for other harnesses, and their outputs as records."""
