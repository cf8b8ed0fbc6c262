"""Features of a float64 model: the same float32 values whatever a processor's last bits are."""

import torch

from palmkit.models.pengi import round_features


def test_noise_of_the_last_bits_does_not_show():
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(500, 128, generator=generator, dtype=torch.float64)
    exact = torch.nn.functional.normalize(exact, dim=-1)
    noise = 1e-14 * torch.randn(exact.shape, generator=generator, dtype=torch.float64)
    features = round_features(exact)
    assert features.dtype == torch.float32
    assert torch.equal(features, round_features(exact + noise))
    assert (features.double() - exact).abs().max() <= 0.5 / 2**20


def test_single_precision_stays_as_it_is():
    x = torch.randn(10, 8)
    assert torch.equal(round_features(x), x)
