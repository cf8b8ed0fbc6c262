"""Datasets: found by name, fetched, checked, or imported from recordings of one's own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "check": ["Check", "check_dataset"],
        "fetch": ["FetchError", "fetch"],
        "import_folder": ["import_dataset", "own_dataset"],
        "manifest": ["BY_HAND", "read_manifest"],
        "resolve": ["choose_folds", "find_dataset", "list_folds", "load_dataset"],
    },
)
