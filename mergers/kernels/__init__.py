"""Compiled code for the methods that are used most: a block in one pass, to the same bits as the formula in `methods/`.

numba makes it from Python at first use and keeps it on disk. It is an extra (`mergeline[fast]`): without it, and for all other methods and
dtypes, torch computes. `table.py` says which method has what; nothing here knows files or workers.
"""
