"""palmkit: reproduce, understand and beat PALM (few-shot prompt learning, EMNLP 2024)."""

import lazy_loader

__version__ = "0.2.0"

# Modules load at first use (PEP 562), so that `palmkit --help` answers at once.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["widgets", "published"],
    submod_attrs={
        "audio": ["AudioError", "read_clip"],
        "data": ["Dataset", "draw_shots"],
        "datasets": [
            "Check",
            "FetchError",
            "check_dataset",
            "fetch",
            "import_dataset",
            "own_dataset",
        ],
        "datasets.resolve": ["list_folds", "load_dataset"],
        "embeddings": ["Embeddings", "embed"],
        "encoder_check": ["EncoderReport", "check_encoder"],
        "methods": [
            "METHODS",
            "PALM",
            "CoCoOp",
            "CoOp",
            "Method",
            "PALMDagger",
            "ZeroShot",
            "get_method",
        ],
        "models": ["MODELS", "CheckpointError", "Pengi", "load_model", "load_pengi"],
        "results.prediction": ["find_clips", "load_predictor", "predict_clips"],
        "tables": ["DatasetError"],
        "training": ["TrainingDiverged", "evaluate", "fit", "predict"],
    },
)
