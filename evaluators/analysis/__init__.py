"""What scores do not tell: how a checkpoint's answers lean towards numbers, and in which layers learning changed what is said.

Like the rest of `evaluators`: a checkpoint and examples in, plain data out. Nothing here knows of trainers, Ray or MLflow.
"""
