"""Is a model of one's own right? `check_encoder(model)`, and `palmkit check-model NAME`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "report": ["EncoderReport", "Finding", "format_report"],
        "run": ["check_encoder", "check_name"],
    },
)
