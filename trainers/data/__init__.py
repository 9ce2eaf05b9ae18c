"""From examples to batches: encoding, order, mixing, packing."""
