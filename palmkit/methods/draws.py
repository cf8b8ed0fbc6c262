"""Initial values, drawn by arithmetic that is the same on every processor."""

from __future__ import annotations

import math

import torch
from torch import nn

INITIAL_STD = 0.02  # of vectors that are learned from noise, as published


def draw_normal(shape, generator: torch.Generator) -> torch.Tensor:
    """The numbers of `torch.randn(shape, generator=generator)` in float64, on every processor.

    torch.randn's vectorised logarithm and cosine differ between processors in the last bit of
    float32. This draws the same uniforms, which are exact everywhere, and does the same Box-Muller
    transform in double precision. The result equals torch.randn to 1e-6, and the generator is left
    in the same state.
    """
    n = math.prod(shape)
    if n < 16:  # torch.randn itself computes one number at a time, in double precision
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    uniform = torch.rand(n, generator=generator)
    blocks = uniform[: n // 16 * 16].view(-1, 16)
    normal = torch.empty(n, dtype=torch.float64)
    normal[: blocks.numel()] = box_muller(blocks)
    if n % 16:  # torch.randn draws its last 16 numbers again
        normal[-16:] = box_muller(torch.rand(1, 16, generator=generator))
    return normal.view(shape)


def box_muller(uniform: torch.Tensor) -> torch.Tensor:
    """Uniform [blocks, 16] in [0, 1) -> normal [16 blocks], float64: pairs are 8 places apart."""
    first, second = uniform.split(8, 1)
    radius = (-2 * (1 - first.double()).log()).sqrt()
    angle = (2 * math.pi * second).double()  # rounded to float32, as torch.randn does
    return torch.cat([radius * angle.cos(), radius * angle.sin()], 1).flatten()


def draw_uniform(shape, bound: float, generator: torch.Generator) -> torch.Tensor:
    """Float64 in [-bound, bound); equals `Tensor.uniform_(-bound, bound)` of float32 to 1e-7."""
    return bound * (2 * torch.rand(shape, generator=generator).double() - 1)


def draw_linear(d_in: int, d_out: int, generator: torch.Generator) -> nn.Linear:
    """nn.Linear in float64 with its default initial values (weight, then bias)."""
    linear = nn.utils.skip_init(nn.Linear, d_in, d_out, dtype=torch.float64)
    with torch.no_grad():
        for parameter in (linear.weight, linear.bias):
            parameter.copy_(draw_uniform(parameter.shape, d_in**-0.5, generator))
    return linear
