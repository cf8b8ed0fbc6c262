"""Experiments: trials, how they are run, and what they cost."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["is_default"],
        "rows": ["load_method", "load_tensors"],
        "run": ["run_trials"],
        "trials": ["Trial", "make_grid", "sweep"],
    },
)
