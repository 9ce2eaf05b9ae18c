"""How far checkpoints are apart, by tensor, by layer and part, and in all: a reduction over the same work items as a merge."""
