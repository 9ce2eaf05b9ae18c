"""The Fisher information of a model on a task, and files of statistics."""
