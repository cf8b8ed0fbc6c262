"""Pre-training of mini-PENGI: corpus, training, controls, model card.

A maintainer's tool; `make mini` runs it.
"""
