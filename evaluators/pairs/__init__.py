"""Asking a modality-expert transformer: retrieval in both directions, answers, comparisons, classes."""
