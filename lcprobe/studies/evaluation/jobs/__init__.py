"""What a session has to do for each variant, shared among processes.

model_notes.py   what the report says of a loaded model       job.py   what is done for a variant, by whom
"""
