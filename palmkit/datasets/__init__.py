"""Datasets and checkpoints: fetched, checked, locked, or one's own recordings."""
