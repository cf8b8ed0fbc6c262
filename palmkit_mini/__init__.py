"""The corpus and the default datasets of mini-PENGI: sounds, music and speech from pip-installed sources alone.

from palmkit_mini import make_clip, build_corpus, build_task
make_clip("dog", 0)                     # [220500] samples at 44.1 kHz
build_corpus("corpus-data")             # about 13,000 log-mels for pre-training
build_task("SoundEvents", "tasks-data")  # a dataset in the published layout, from other sources than the corpus
"""
