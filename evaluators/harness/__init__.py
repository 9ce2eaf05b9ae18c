"""Tasks of other evaluation harnesses (lm-eval, lmms-eval): run in their own environment on a checkpoint, read into our records."""
