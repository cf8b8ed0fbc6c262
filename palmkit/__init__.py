"""palmkit: reproduce, understand and beat PALM (few-shot prompt learning for audio-language models, EMNLP 2024)."""

from palmkit.audio import AudioError, read_clip
from palmkit.data import Dataset, DatasetError, draw_shots, list_folds, load_dataset
from palmkit.datasets.check import Check, check_dataset
from palmkit.datasets.fetch import FetchError, fetch
from palmkit.datasets.own import own_dataset
from palmkit.embeddings import Embeddings, embed
from palmkit.methods import METHODS, PALM, CoCoOp, CoOp, Method, ZeroShot
from palmkit.pengi import CheckpointError, Pengi, load_pengi
from palmkit.training import TrainingDiverged, evaluate, fit, predict

__version__ = "0.1.0"
__all__ = [
    "METHODS", "PALM", "AudioError", "Check", "CheckpointError", "CoCoOp", "CoOp", "Dataset", "DatasetError",
    "Embeddings", "FetchError", "Method", "Pengi", "TrainingDiverged", "ZeroShot", "check_dataset", "draw_shots",
    "embed", "evaluate", "fetch", "fit", "list_folds", "load_dataset", "load_pengi", "own_dataset", "predict",
    "read_clip",
]  # fmt: skip
