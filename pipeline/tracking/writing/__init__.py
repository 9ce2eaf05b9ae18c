"""From a run's events to MLflow: the journal, the one process that writes from it, and how far that is."""
