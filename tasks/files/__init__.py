"""Tasks read from a user's own files: LLaVA conversations, `messages`, JSON, JSONL, Parquet, Arrow, and YAML mixtures of them.

`task.py` is the door: `file_task(...)` makes a task, which is a value. `sources.py` says which files; `sampling.py` which of their records;
`readers.py` fetches a record (`text.py`, `tables.py`); `conversation.py` turns it into turns and images; `images.py` opens the images;
`check.py` finds what cannot be used before any work starts; `examples.py` is what a trainer reads; `write.py` writes such files.
"""
