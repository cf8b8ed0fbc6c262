"""Audio-text models: `load_model` by name or checkpoint; the protocols that a model follows."""

import lazy_loader

# At first use: tables and reports need the protocols only, and no network's libraries.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "about": ["add_note", "describe", "has_pengi_design"],
        "base": ["AudioTextModel", "PromptableText", "StochasticText"],
        "checkpoint": ["CheckpointError"],
        "clap": ["Clap", "load_clap"],
        "msclap": ["MsClap", "load_msclap"],
        "pair": ["AudioHalf", "AudioOnly", "ModelPair"],
        "pengi": ["Pengi", "load_pengi"],
        "registry": ["MODELS", "list_models", "load_model"],
    },
)
