"""Images with text in Arrow files: converters from the published annotation formats, and sets that read what they write.

A conversion is `convert.convert(name, root, out, options)`; a set is `sets.arrow_set(...)`. What a data set is made of, and under which
names its files lie, stands once in `names.py`, for both. Light to import: pyarrow and PIL are loaded where they are used.
"""
