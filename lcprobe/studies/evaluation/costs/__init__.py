"""What probing costs, before anything is trained, downloaded or loaded.

shape_only.py   models of which only the shape is known        read_tokens.py   what a grid's prompts share
tables.py       the tables of `evaluate.py --plan`             untrained.py     the plan of what is not there yet
attention_layers.py  of models of transformers
"""
