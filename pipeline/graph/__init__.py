"""Steps on Ray: the connection, the DAG of tasks, what one task does, and the two steps that spread further (training, merging)."""
