"""Searching a merge's parameters on validation data: what is tried, how trials run on Ray Tune, and which is picked."""
