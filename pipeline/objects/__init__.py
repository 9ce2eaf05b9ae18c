"""An object store as the place that all nodes share: files written whole, the record last, a conditional write as the lock."""
