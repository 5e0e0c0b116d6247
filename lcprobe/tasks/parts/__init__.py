"""Parts that tasks share: placement of needles, distractor lines, word lists, generated facts, questions."""
