"""Text that tasks are made of: tokenizers, haystacks, formats of keys and values, paragraphs, round trips."""
