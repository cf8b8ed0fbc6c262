"""Precision: rounded features of a float64 model, and convolutions as exact as matrix products."""

import pytest
import torch
from tones import write_tones

from palmkit.embeddings import embed, provenance
from palmkit.models.pengi import round_features
from palmkit.models.precision import exact_convolutions


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


CONVOLUTIONS = torch.backends.cudnn.conv


@pytest.fixture
def matmul_precision():
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


def test_convolutions_are_float32_where_products_are():
    assert torch.backends.cudnn.allow_tf32  # PyTorch's default
    with exact_convolutions():
        assert not torch.backends.cudnn.allow_tf32
        assert CONVOLUTIONS.fp32_precision != "tf32"
    assert torch.backends.cudnn.allow_tf32
    with pytest.raises(ZeroDivisionError), exact_convolutions():
        raise ZeroDivisionError
    assert torch.backends.cudnn.allow_tf32


def test_a_setting_of_the_newer_interface_is_put_back():
    before = CONVOLUTIONS.fp32_precision
    recurrent = torch.backends.cudnn.rnn
    recurrent_before = recurrent.fp32_precision
    recurrent.fp32_precision = "ieee"  # now the older interface raises
    try:
        with exact_convolutions():
            assert CONVOLUTIONS.fp32_precision == "ieee"
        assert CONVOLUTIONS.fp32_precision == before == "tf32"
        assert recurrent.fp32_precision == "ieee"
    finally:
        recurrent.fp32_precision = recurrent_before
    assert torch.backends.cudnn.allow_tf32


def test_threads_that_embed_side_by_side():
    first, second = exact_convolutions(), exact_convolutions()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32  # the second one goes on
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32


def test_whoever_asked_for_faster_products_keeps_pytorchs_convolutions(matmul_precision):
    matmul_precision("high")
    with exact_convolutions():
        assert torch.backends.cudnn.allow_tf32


def test_models_embed_with_exact_convolutions(tiny_pengi, compact, monkeypatch, tmp_path):
    """PENGI's own encoder, and a model of one's own in `embed`."""
    seen = []

    class Own:
        """A model that says nothing about convolutions."""

        def __getattr__(self, name):
            return getattr(tiny_pengi, name)

        def encode_audio(self, waveforms):
            seen.append(torch.backends.cudnn.allow_tf32)
            return tiny_pengi.encode_audio(waveforms)

    embed(Own(), write_tones(tmp_path, [1]), cache=None)
    seen_inside = spy_on(tiny_pengi.audio, monkeypatch)
    tiny_pengi.encode_audio(compact.waves())
    assert seen == [False] and set(seen_inside) == {False}
    assert torch.backends.cudnn.allow_tf32


def spy_on(encoder, monkeypatch) -> list[bool]:
    """Whether convolutions may use TF32, at each call of an encoder."""
    seen, forward = [], encoder.forward

    def spying(*inputs):
        seen.append(torch.backends.cudnn.allow_tf32)
        return forward(*inputs)

    monkeypatch.setattr(encoder, "forward", spying)
    return seen


def test_a_gpus_embeddings_have_a_place_of_their_own_in_the_cache(tiny_pengi, monkeypatch):
    here = provenance(tiny_pengi, "center", 0)
    assert "device" not in here  # so caches of older versions stay valid
    monkeypatch.setattr(tiny_pengi, "device", torch.device("cuda:1"))
    assert provenance(tiny_pengi, "center", 0) == {**here, "device": "cuda"}
