"""Views of a corpus, as `mini_pengi.views` makes them, of noise."""

from __future__ import annotations

import pandas as pd
import torch
from mini_pengi.views import Views


def noise_views(concepts: list[str], n: int = 120) -> Views:
    """Latents of noise, of these concepts; a third of each has a second sound."""
    generator = torch.Generator().manual_seed(0)
    k = len(concepts)
    second = [concepts[(row + 1) % k] if row // k % 3 == 0 else "" for row in range(n)]
    clips = pd.DataFrame(
        {
            "concept": [concepts[row % k] for row in range(n)],
            "second": second,
            **{"wet": 0.0, "reverb": 0.0, "snr_db": 99.0, "edge_band": 64, "level_db": 0.0},
            **{"low_pass_hz": 20_000.0, "drive": 0.0, "excerpt": 9.0},
        }
    )
    return Views(torch.randn(n, 128, generator=generator), clips)
