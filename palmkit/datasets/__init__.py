"""Datasets: found by name, fetched, checked, or imported from recordings of one's own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "check": ["Check", "check_dataset"],
        "fetch": ["BY_HAND", "FetchError", "fetch", "read_manifest"],
        "import_folder": ["own_dataset"],
        "resolve": ["choose_folds", "find_dataset", "list_folds", "load_dataset"],
    },
)
