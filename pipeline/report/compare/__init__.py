"""What `compare` says: two models on the same samples, whole runs side by side, the settings in which they differ."""
