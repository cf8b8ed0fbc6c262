"""The same numbers on every device, from waveform to accuracy. The case of CUDA skips where there is none."""

import pytest
import torch

from palmkit import METHODS, embed, evaluate, fit, load_pengi

NAMES = ["church bells", "crying baby", "dog"]


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    return request.param


def test_auto_is_cuda_if_there_is_one(compact):
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert load_pengi(compact.checkpoint).device.type == expected


@pytest.mark.parametrize("name", METHODS)
def test_training_is_the_same_on_every_device(name, device, compact, tiny_pengi):
    there = load_pengi(compact.checkpoint, device=device)
    waves = compact.waves()
    features = there.encode_audio(waves)
    torch.testing.assert_close(features.cpu(), tiny_pengi.encode_audio(waves), atol=1e-4, rtol=0)
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(24, there.dim, generator=generator), torch.arange(24) % 3
    results = []
    for pengi in (there, tiny_pengi):
        method = METHODS[name](pengi, NAMES, seed=0)
        losses = fit(method, features, labels, epochs=3)
        results.append(
            (torch.tensor(losses), torch.tensor(evaluate(method, features, labels)["loss"]))
        )
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_embeddings_come_home(device, compact, tmp_path):
    """What `embed` returns and keeps lies on the CPU, wherever the model is."""
    clip = sorted(compact.preprocess.glob("*.wav"))[0]
    pengi = load_pengi(compact.checkpoint, device=device)
    for _ in range(2):
        got = embed(pengi, [clip], cache=tmp_path)
        assert got.features.device.type == "cpu" and got.features.shape == (1, pengi.dim)
