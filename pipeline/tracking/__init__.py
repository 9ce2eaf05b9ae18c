"""MLflow's mirror of the store: runs, models, metrics and links between them, written by one thread of the driver."""
