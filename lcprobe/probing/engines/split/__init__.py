"""A model over several devices.

layers     blocks over the devices of one process: weights that do not fit one
context    keys and values over processes: contexts that do not fit one
"""
