"""One stage of learning of a modality-expert transformer: its objectives, its batches, and what is measured for merging."""
