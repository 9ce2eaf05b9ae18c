"""A checkpoint and a suite of tasks in, scores out; and what a table of such scores says about learning and forgetting.

Knows nothing of Ray, MLflow, trainers or mergers. `suite`, `scores` and `continual` are light to import;
`evaluate` and `generate` bring in torch.
"""
