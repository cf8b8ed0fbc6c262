"""The same numbers on every device, from waveform to accuracy. CUDA's cases skip without CUDA."""

import pytest
import torch

from palmkit import METHODS, embed, evaluate, fit, load_pengi
from palmkit.models import ModelPair
from palmkit.models.base import choose_device
from palmkit.models.pengi import choose_dtype

NAMES = ["church bells", "crying baby", "dog"]


@pytest.mark.parametrize(("available", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_if_there_is_one(available, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device("auto").type == expected
    assert choose_device("cpu").type == "cpu"


def test_cuda_that_is_not_there_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1", torch.device("cuda")):
        with pytest.raises(ValueError, match="there is no CUDA device here: use cpu or auto"):
            choose_device(device)


def test_double_precision_where_the_device_has_it(compact):
    for device in ("cpu", "cuda", "mps"):
        expected = torch.float32 if device == "mps" else torch.float64
        assert choose_dtype("float64", torch.device(device)) == expected
        assert choose_dtype("float32", torch.device(device)) == torch.float32
    config = {"text": {"num_attention_heads": 4}, "precision": "float64"}
    model = load_pengi(compact.checkpoint, "cpu", config=config)
    assert model.dtype == model.audio.mel.dtype == torch.float64
    assert model.text.layers[0].fc1.weight.dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
class TestCuda:
    @pytest.fixture(scope="class")
    def there(self, compact):
        return load_pengi(compact.checkpoint, device="cuda")

    @pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].tunes_audio])
    def test_training_is_the_same(self, name, there, compact, tiny_pengi):
        waves = compact.waves()
        got, expected = there.encode_audio(waves), tiny_pengi.encode_audio(waves)
        torch.testing.assert_close(got.cpu(), expected, atol=1e-4, rtol=0)
        generator = torch.Generator().manual_seed(0)
        times = 2 if METHODS[name].needs_pair else 1
        features, labels = (
            torch.randn(24, times * there.dim, generator=generator),
            torch.arange(24) % 3,
        )
        results = []
        for one in (there, tiny_pengi):
            model = ModelPair(one, one) if METHODS[name].needs_pair else one
            method = METHODS[name](model, NAMES, seed=0)
            losses = fit(method, features, labels, epochs=3)
            results.append(torch.tensor([*losses, evaluate(method, features, labels)["loss"]]))
        torch.testing.assert_close(*results, atol=1e-3, rtol=1e-3)

    def test_embeddings_come_home(self, there, compact, tmp_path):
        """What `embed` returns and keeps lies on the CPU."""
        clip = sorted(compact.preprocess.glob("*.wav"))[0]
        for _ in range(2):
            got = embed(there, [clip], cache=tmp_path)
            assert got.features.device.type == "cpu" and got.features.shape == (1, there.dim)
