"""The training protocol of the published code."""
