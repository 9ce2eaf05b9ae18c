"""What a stage writes: checkpoints inside it, milestones, its output."""
