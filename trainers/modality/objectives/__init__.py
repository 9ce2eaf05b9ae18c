"""What a stage of a modality-expert transformer can learn: one file per objective, all of them in `table.py`.

Each is a formula on tensors, and a function that runs the model for it on one micro batch (`passes.py`).
"""
