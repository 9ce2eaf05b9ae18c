"""Checkpoints as they lie on disk: finding them, reading their headers, and the small files beside the weights. Nothing here merges."""
