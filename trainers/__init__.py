"""One stage of learning: a checkpoint directory and a task in, a checkpoint directory out. Knows neither Ray nor MLflow."""
