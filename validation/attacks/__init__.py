"""Attacks that need no retrieval: policies and learned attackers, on our tasks and on RULER's."""
