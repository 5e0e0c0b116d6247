"""Charts about the depth of the needle."""
