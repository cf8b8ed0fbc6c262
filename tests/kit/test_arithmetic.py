"""The same numbers on every processor: initial values, and a model in double precision."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from palmkit import METHODS, embed, evaluate, fit, load_pengi, predict
from palmkit.methods.draws import draw_linear, draw_normal
from palmkit.models import ModelPair
from palmkit.models.checkpoint import CheckpointError

NAMES = ["dog", "rain"]
HEADS = {"text": {"num_attention_heads": 4}}
ARITHMETICS = {
    "this processor": {},
    "no vectors": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
SCRIPT = """
import sys
import torch
from palmkit import METHODS, fit, load_pengi, predict

torch.set_num_threads(1)
model = load_pengi("mini", "cpu")
generator = torch.Generator().manual_seed(0)
noise = torch.rand(6, 308_700, generator=generator) - 0.5
features, labels = model.encode_audio(noise), torch.arange(6) % 2
kept = {"features": features}
for name in ("coop", "cocoop", "palm"):
    method = METHODS[name](model, ["dog", "rain"], seed=1)
    kept[f"{name} losses"] = torch.tensor(fit(method, features, labels, epochs=10, batch_size=4))
    kept[f"{name} logits"] = predict(method, features)
torch.save(kept, sys.argv[1])
"""


@pytest.mark.parametrize(
    "shape", [(1,), (3, 5), (16,), (17,), (4, 8), (20, 128), (5, 1024), (3, 7)]
)
def test_draw_normal_is_randn(shape):
    ours, theirs = (torch.Generator().manual_seed(3) for _ in range(2))
    for _ in range(2):
        got, expected = draw_normal(shape, ours), torch.randn(shape, generator=theirs)
        assert got.dtype == torch.float64 and got.shape == shape
        assert (got - expected).abs().max() < 1e-6
    assert torch.equal(ours.get_state(), theirs.get_state())


def test_linear_layers_start_as_pytorch_s():
    generator = torch.Generator().manual_seed(5)
    ours = [draw_linear(64, 4, generator), draw_linear(4, 32, generator)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = [nn.Linear(64, 4), nn.Linear(4, 32)]
    for got, expected in zip(ours, theirs, strict=True):
        for name, parameter in expected.named_parameters():
            assert (getattr(got, name) - parameter).abs().max() < 1e-7, name


@pytest.mark.slow
def test_initial_values_are_the_published_ones(tiny_pengi):
    """torch.randn and torch.rand after one seed, in the published order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        z, lambdas = 0.02 * torch.randn(2, 64), torch.rand(2)
        torch.manual_seed(7)
        context, linear = 0.02 * torch.randn(16, 32), nn.Linear(64, 4)
    palm, cocoop = (METHODS[name](tiny_pengi, NAMES, seed=7) for name in ("palm", "cocoop"))
    for got, expected in [
        (palm.z, z),
        (palm.lambda_logits, lambdas),
        (cocoop.context, context),
        (cocoop.meta_net.linear1.weight, linear.weight),
        (cocoop.meta_net.linear1.bias, linear.bias),
    ]:
        assert (got - expected).abs().max() < 1e-7


@pytest.fixture(scope="module")
def double(compact):
    return load_pengi(compact.checkpoint, "cpu", config=HEADS | {"precision": "float64"})


@pytest.mark.slow
def test_a_model_in_double_precision(double, compact):
    """Features come out in float32; all else is float64 and close to single precision."""
    single = load_pengi(compact.checkpoint, "cpu", config=HEADS)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    waves = compact.waves()[:2]
    one, two = single.encode_audio(waves), double.encode_audio(waves)
    assert one.dtype == two.dtype == torch.float32 and (one - two).abs().max() < 1e-5
    assert double.encode_text(NAMES).dtype == torch.float64
    assert double.digest() != single.digest()
    of_one, labels = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), [0, 1] * 4
    on_embeddings = {name: cls for name, cls in METHODS.items() if not cls.tunes_audio}
    for name, make in on_embeddings.items():
        logits = []
        for one in (single, double):
            model = ModelPair(one, one) if make.needs_pair else one
            features = of_one.repeat(1, 2 if make.needs_pair else 1)
            method = make(model, NAMES, seed=0)
            fit(method, features, labels, epochs=2)
            assert {p.dtype for p in method.state_dict().values()} <= {model.dtype, torch.int64}
            logits.append(predict(method, features))
            assert logits[-1].dtype == model.dtype
            assert torch.equal(method(features).cpu(), logits[-1])  # float32 features are taken
            assert 0 <= evaluate(method, features, labels)["accuracy"] <= 1
        assert (logits[0] - logits[1]).abs().max() < 1e-2, name


def test_embeddings_of_a_double_model_are_kept_in_float32(double, compact, tmp_path):
    clip = sorted(compact.preprocess.glob("*.wav"))[0]
    first, again = (embed(double, [clip], cache=tmp_path).features for _ in range(2))
    assert first.dtype == torch.float32 and torch.equal(first, again)


def test_a_precision_that_is_none(compact):
    with pytest.raises(CheckpointError, match="precision='half'.*float32, float64"):
        load_pengi(compact.checkpoint, "cpu", config=HEADS | {"precision": "half"})


@pytest.mark.slow
def test_mini_does_not_depend_on_the_processor(tmp_path):
    """Features to the last bit, and logits after training to 1e-8 (measured: 1e-11)."""
    kept = []
    for n, variables in enumerate(ARITHMETICS.values()):
        path = tmp_path / f"{n}.pt"
        environment = {**os.environ, **variables}
        subprocess.run([sys.executable, "-c", SCRIPT, str(path)], env=environment, check=True)
        kept.append(torch.load(path))
    one, other = kept
    assert torch.equal(one["features"], other["features"])
    apart = {key: (one[key] - other[key]).abs().max().item() for key in one}
    assert max(apart.values()) < 1e-8, json.dumps(apart)
    assert one["coop logits"].dtype == torch.float64
