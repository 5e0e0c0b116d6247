"""Published results, as data with their source, and what can be computed from them alone.

    tables      the scores of arXiv 2407.08112, cell by cell, and why a cell is not what it seems
    retest      "lost in the middle" tested again on its Table 4

The numbers are CSV files in `data/`, as printed: percentages, an empty field where the copy is unreadable. A second
study is another folder of such files; no number of it belongs into code.
"""
