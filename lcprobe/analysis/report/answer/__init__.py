"""What a reader must know first: a headline table, the answer in four lines, ranked findings, limits by kind."""
