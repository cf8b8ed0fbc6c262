"""The training protocol of the published code."""

STREAM_VERSION = 2  # raise it with every change of `streams` that changes a stream
