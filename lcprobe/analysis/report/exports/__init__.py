"""What a report writes beside its page for other documents: every table as CSV and LaTeX.

latex     a table as booktabs
tables    which tables there are, by the names of their files
files     a folder with exactly the files of one report
"""
