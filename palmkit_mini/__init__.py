"""mini-PENGI, its corpus and the default datasets: sounds, music and speech from pip-installed sources alone.

from palmkit_mini.clips import make_clip
from palmkit_mini.corpus import build_corpus
from palmkit_mini.tasks import build_task

make_clip("dog", 0)  # [220500] samples at 44.1 kHz
build_corpus("data/mini/corpus")  # about 13,000 log-mels for pre-training
build_task("SoundEvents")  # a dataset in the published layout, from other sources than the corpus
"""
