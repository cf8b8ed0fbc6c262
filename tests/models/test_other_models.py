"""Every method on models that are deliberately not PENGI: 16 kHz, 4 s, 48 dimensions."""

import pytest
import torch
import torch.nn.functional as F
from tones import write_tones
from toy_models import BidirectionalModel, WordModel

from palmkit import METHODS, embed, evaluate, fit, predict
from palmkit.models import AudioTextModel, ModelPair, Pengi, PromptableText, StochasticText
from palmkit.models.base import find_missing
from palmkit.protocols.prompt_files import load_prompt, save_prompt
from palmkit.protocols.streams import embed_stream

NAMES = ["low hum", "high whistle", "noise"]
TOKEN_LEVEL = [name for name in METHODS if name in ("coop", "cocoop")]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Nine files of 3 to 6 s at 22,050 Hz."""
    return write_tones(tmp_path_factory.mktemp("clips"), [3 + n % 4 for n in range(9)])


@pytest.fixture(params=[WordModel, BidirectionalModel], ids=lambda cls: cls.name)
def model(request):
    return request.param()


def test_what_they_have(tiny_pengi):
    words, bidirectional = WordModel(), BidirectionalModel()
    for model in (words, bidirectional, tiny_pengi):
        assert isinstance(model, AudioTextModel) and not find_missing(model, AudioTextModel)
    assert isinstance(bidirectional, PromptableText) and isinstance(tiny_pengi, PromptableText)
    assert find_missing(words, PromptableText) == [
        *("text_width", "tokenize", "embed_tokens", "encode_embeddings")
    ]
    assert isinstance(tiny_pengi, StochasticText) and not isinstance(bidirectional, StochasticText)


def test_its_rate_length_and_key(model, clips, tmp_path):
    """`embed` hands out 4 s at 16 kHz, and another model's embeddings are not found."""
    got = embed(model, clips, cache=tmp_path)
    assert got.features.shape == (9, 48) and got.features.dtype == torch.float32
    assert [offset > 0 for offset in got.offsets] == [n % 4 > 1 for n in range(9)]
    assert max(got.offsets) < 2 * 16_000
    assert torch.equal(embed(model, clips, cache=tmp_path).features, got.features)
    model.audio_layer.weight.data *= -1
    assert not torch.equal(embed(model, clips, cache=tmp_path).features, got.features)


ON_EMBEDDINGS = [name for name, cls in METHODS.items() if not cls.tunes_audio]


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_EMBEDDINGS)
def test_every_method(name, clips, tmp_path):
    model = BidirectionalModel()
    if METHODS[name].needs_pair:
        model = ModelPair(model, WordModel())
    support = embed(model, clips, cache=None, crop="start")
    before = model.digest()
    method = METHODS[name](model, NAMES, seed=0)
    start = evaluate(method, support.features, support.labels)
    losses = fit(method, support.features, support.labels, epochs=30, batch_size=4)
    scores = evaluate(method, support.features, support.labels)
    assert model.digest() == before
    assert method.own_fit or len(losses) == 90 * method.learns
    assert scores["loss"] < start["loss"] if method.learns else scores == start
    logits = predict(method, support.features)
    assert logits.shape == (9, 3)
    assert method.own_fit or logits.abs().max() <= 20 + 1e-4  # the model's own scale
    save_prompt(tmp_path / "prompt.pth", method)
    fresh = METHODS[name](model, NAMES, seed=1)
    assert load_prompt(tmp_path / "prompt.pth", fresh) is model
    assert torch.equal(predict(fresh, support.features), logits)


@pytest.mark.parametrize("name", ["zeroshot", "palm", "palm-dagger"])
def test_a_model_without_tokens(name, clips):
    model = WordModel()
    support = embed(model, clips, cache=None)
    method = METHODS[name](model, NAMES)
    fit(method, support.features, support.labels, epochs=2)
    assert predict(method, support.features).shape == (9, 3)


@pytest.mark.parametrize("name", TOKEN_LEVEL)
def test_what_a_model_without_tokens_cannot(name):
    message = (
        rf"^{name.upper()} needs token-level text \(tokenize, embed_tokens, encode_embeddings\), "
        "which words does not have$"
    )
    with pytest.raises(ValueError, match=message):
        METHODS[name](WordModel(), NAMES)


def test_zero_shot_has_the_model_s_prompt(model):
    text = model.encode_text([f"a sound of {name}" for name in NAMES])
    features = F.normalize(torch.randn(4, 48, generator=torch.Generator().manual_seed(0)), dim=-1)
    torch.testing.assert_close(METHODS["zeroshot"](model, NAMES)(features), 20 * features @ text.T)


def test_a_prefix_that_is_not_shared():
    """COOP's text equals the whole sentence encoded at once, though the model is not causal."""
    model = BidirectionalModel()
    method = METHODS["coop"](model, NAMES, context_length=3)
    ids, mask = model.tokenize([f"X X X {name}." for name in NAMES])
    method.context.data.copy_(model.embed_tokens(ids[0, 1:4]))
    whole = F.normalize(model.encode(model.embed_tokens(ids), mask.sum(1)), dim=-1)
    torch.testing.assert_close(method.text_features(method.context[None])[0].data, whole)


def test_a_tokenizer_that_splits_the_placeholder():
    class Letters(BidirectionalModel):
        def tokenize(self, prompts):
            return super().tokenize([prompt.replace("X", "x y") for prompt in prompts])

    with pytest.raises(ValueError, match="must have one token for the word X"):
        METHODS["coop"](Letters(), NAMES)


def test_the_published_train_mode_is_pengi_s(clips):
    with pytest.raises(ValueError, match="is PENGI's .*words"):
        embed_stream(WordModel(), clips, epochs=1, cache=None)
    assert not isinstance(WordModel(), Pengi)
