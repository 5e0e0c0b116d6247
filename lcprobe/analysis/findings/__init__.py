"""Findings: from records to cells, contrasts, extrapolation, reach, half-life, gates and text curves."""
