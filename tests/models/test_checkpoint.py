"""Checkpoints: every container gives the same model, and every tensor that is wrong is named."""

import copy
import functools
import json
import pickle
import random
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from palmkit import CheckpointError, embed, load_pengi, read_clip
from palmkit.models.checkpoint import (
    HTSAT,
    MEL,
    PENGI_SIZES,
    STFT,
    build,
    check_config,
    check_depths,
    checkpoint_state,
    load_weights,
    merge_config,
    read_sizes,
    stft_kernels,
)

pytestmark = pytest.mark.usefixtures("one_thread")
HEADS = {"text": {"num_attention_heads": 4}}
SIZES = {
    "d_proj": 16,
    "audio": PENGI_SIZES["audio"]
    | {"n_fft": 64, "embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]},
    "text": PENGI_SIZES["text"]
    | {"hidden_size": 8, "intermediate_size": 12, "projection_dim": 10, "num_hidden_layers": 2},
}
PROMPTS = ["a dog barks", "rain", "The is a recording of  vacuum cleaner."]
TOKENS = "caption_encoder.base.embeddings.token_embedding.weight"
POSITIONS = "caption_encoder.base.embeddings.position_embedding.weight"
NORM = "caption_encoder.base.final_layer_norm.weight"


@pytest.fixture(scope="module")
def encoders():
    """Random weights at a size that loads in no time."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        audio, text = build(SIZES, merge_config(HEADS))
    for tensor in (*audio.parameters(), *text.parameters(), audio.mel):
        tensor.data.add_(
            0.02 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel()))
        )
    audio.window.copy_(torch.hann_window(len(audio.window)))
    return audio, text


@pytest.fixture(scope="module")
def state(encoders):
    """A small checkpoint's tensors, without a prefix; leave them as they are."""
    return {key: tensor.clone() for key, tensor in checkpoint_state(*encoders).items()}


@pytest.fixture(scope="module")
def digest(state, tmp_path_factory):
    """The digest of the model with these tensors."""
    return load(tmp_path_factory.mktemp("digest"), state).digest()


def save(folder, state, name="tiny.pth", config=HEADS):
    path = Path(folder) / name
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    if config is not None:
        path.with_name("config.json").write_text(json.dumps(config))
    return path


def load(folder, state, **kwargs):
    return load_pengi(save(folder, state, **kwargs), device="cpu")


def refused(path, **kwargs):
    with pytest.raises(CheckpointError) as caught:
        load_pengi(path, device="cpu", **kwargs)
    return str(caught.value)


@functools.cache
def built(sizes):
    """The two encoders of these sizes without memory for their tensors: enough to compare
    shapes.
    """
    with torch.device("meta"):
        return build(json.loads(sizes), merge_config(HEADS))


def verdict(state):
    """What loading a state says, "" for nothing; without a file, and building a model only once
    for each size.
    """
    try:
        sizes = read_sizes(state)
        check_config(HEADS, sizes, Path("tiny.pth"))
        load_weights(*built(json.dumps(sizes)), state, Path("tiny.pth"))
    except CheckpointError as error:
        return str(error)
    return ""


# The same model from every container.


def containers(state):
    decoder = {
        "caption_decoder.gpt.transformer.wte.weight": torch.zeros(3, 2),
        "caption_decoder.clip_project.b": NORM,
    }
    prefixed = {f"module.{key}": tensor for key, tensor in state.items()}
    clutter = {
        "caption_encoder.base.embeddings.position_ids": torch.arange(77)[None],
        "audio_encoder.base.htsat.head.weight": torch.zeros(4, 4),
        "audio_encoder.base.htsat.tscam_conv.bias": torch.zeros(4),
        "audio_encoder.base.htsat.layers.0.blocks.0.attn.relative_position_index": torch.zeros(
            64, 64
        ).long(),
        "audio_encoder.base.htsat.layers.0.blocks.1.attn_mask": torch.zeros(64, 64, 64),
    }
    tensors = {key: value for key, value in decoder.items() if isinstance(value, torch.Tensor)}
    return {
        "bare.pth": state,
        "wrapped.pth": {"model": state},
        "prefixed.pth": prefixed,
        "published.pth": {
            "model": {**prefixed, **{f"module.{key}": value for key, value in decoder.items()}}
        },
        "cluttered.pth": {
            "model": {**state, **clutter, **decoder},
            "epoch": 3,
            "optimizer": {"lr": 0.1},
        },
        "compiled.pth": {f"_orig_mod.{key}": tensor for key, tensor in state.items()},
        "compiled in parts.pth": {
            key.replace("encoder.", "encoder._orig_mod.", 1): tensor
            for key, tensor in state.items()
        },
        "compiled and distributed.pth": {
            "model": {f"module._orig_mod.{key}": tensor for key, tensor in state.items()}
        },
        "lightning.pth": {
            "state_dict": {f"net.{key}": tensor for key, tensor in state.items()},
            "pytorch-lightning_version": "2.5.0",
            "hyper_parameters": {"lr": 0.1},
            "loops": {},
        },
        "trainer.pth": {"model_state_dict": prefixed, "epoch": 3},
        "bare.safetensors": state,
        "prefixed.safetensors": {
            **prefixed,
            **{f"module.{key}": value for key, value in {**clutter, **tensors}.items()},
        },
        "double.pth": {
            key: value.double() if value.is_floating_point() else value
            for key, value in state.items()
        },
    }


@pytest.mark.parametrize("name", containers({}))
def test_same_model_from_every_container(name, state, digest, tmp_path):
    pengi = load(tmp_path, containers(state)[name], name=name)
    assert pengi.digest() == digest
    assert pengi.digest("audio") != pengi.digest("text") != digest


def test_what_is_loaded_is_what_was_saved(state, encoders, tmp_path):
    """Tensor for tensor, and back into the checkpoint's own names."""
    pengi = load(tmp_path, state)
    for got, expected in zip((pengi.audio, pengi.text), encoders, strict=True):
        got, expected = got.state_dict(), expected.state_dict()
        assert got.keys() == expected.keys()
        assert [key for key in got if not torch.equal(got[key], expected[key])] == []
    again = checkpoint_state(pengi.audio, pengi.text)
    assert [key for key in state if not torch.equal(again[key], state[key])] == []
    assert (pengi.dim, pengi.text.width, pengi.audio.mel.shape) == (16, 8, (33, 64))
    assert read_sizes(state) == SIZES


def test_embeddings_do_not_depend_on_the_container(state, tmp_path):
    one = load(
        tmp_path,
        {"model": {f"module.{key}": tensor for key, tensor in state.items()}},
        name="one.pth",
    )
    other = load(tmp_path, state, name="other.safetensors")
    waveform = torch.randn(1, 308_700, generator=torch.Generator().manual_seed(0)) / 10
    assert torch.equal(one.encode_audio(waveform), other.encode_audio(waveform))
    assert torch.equal(one.encode_text(PROMPTS), other.encode_text(PROMPTS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["half", "bf16"])
@pytest.mark.parametrize("name", ["half.pth", "half.safetensors"])
def test_half_precision(name, dtype, state, digest, tmp_path):
    """Computed in float32 from the rounded weights: other numbers, another digest, nearly the
    same embeddings.
    """
    rounded = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
    }
    half, whole = load(tmp_path, rounded, name=name), load(tmp_path, state)
    assert half.digest() != digest and {
        tensor.dtype for tensor in half.text.state_dict().values()
    } == {torch.float32}
    waveform = torch.randn(1, 308_700, generator=torch.Generator().manual_seed(0)) / 10
    for got, expected in (
        (half.encode_audio(waveform), whole.encode_audio(waveform)),
        (half.encode_text(PROMPTS), whole.encode_text(PROMPTS)),
    ):
        assert (got * expected).sum(-1).min() > (0.9999 if dtype == torch.float16 else 0.99)


def test_a_tensor_that_is_there_twice(state, tmp_path):
    """Under two wrappers' names: which one is meant?"""
    key = next(iter(state))
    twice = {**state, f"module.{key}": state[key] + 1}
    message = refused(save(tmp_path, twice))
    assert f"{key} twice" in message and "tiny.pth" in message


def test_tensors_that_share_memory(state, digest, tmp_path):
    """Whatever is done to what was saved does not reach the model: it owns its weights."""
    path = save(tmp_path, state)
    pengi = load_pengi(path, device="cpu")
    pengi.text.token_embedding.weight.zero_()
    assert load_pengi(path, device="cpu").digest() == digest


def test_loading_leaves_generators_alone(state, tmp_path):
    path = save(tmp_path, state)
    torch.manual_seed(11), random.seed(11)
    before = torch.get_rng_state(), random.getstate()
    load_pengi(path, device="cpu")
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]


def test_loaded_model_is_frozen(state, tmp_path):
    pengi = load(tmp_path, state)
    for encoder in (pengi.audio, pengi.text):
        assert not any(module.training for module in encoder.modules())
        assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_embeddings_are_plain_tensors(state, tmp_path):
    """No inference tensors: autograd takes them as inputs, and needs no gradient of them."""
    pengi = load(tmp_path, state)
    for embedding in (pengi.encode_audio(torch.zeros(1, 308_700)), pengi.encode_text(PROMPTS)):
        weight = torch.ones(16, requires_grad=True)
        (embedding * weight).sum().backward()
        assert not embedding.requires_grad
        torch.testing.assert_close(weight.grad, embedding.sum(0))
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(len(embedding)))


def test_audio_stays_in_eval_mode(state, tmp_path):
    """Someone's train() changes neither embeddings (dropout, batch statistics) nor bn0's
    statistics.
    """
    pengi = load(tmp_path, state)
    waveform = torch.randn(1, 308_700, generator=torch.Generator().manual_seed(0)) / 10
    audio, text, digest = pengi.encode_audio(waveform), pengi.encode_text(PROMPTS), pengi.digest()
    pengi.audio.train(), pengi.text.train()
    assert torch.equal(pengi.encode_audio(waveform), audio) and torch.equal(
        pengi.encode_text(PROMPTS), text
    )
    assert pengi.digest() == digest


def test_sizes_of_pengi():
    """Read off tensors without memory, at the size of base.pth."""
    with torch.device("meta"):
        audio, text = build(PENGI_SIZES, merge_config({}))
        assert read_sizes(checkpoint_state(audio, text)) == PENGI_SIZES


# Tensors that are missing, misshapen, unknown or not finite, all of them.


def test_whole_state_fits(state):
    assert verdict(state) == ""


@pytest.mark.slow
def test_each_missing_tensor_is_named(state):
    assert len(state) > 150
    unnamed = {}
    for key in state:
        message = verdict({other: tensor for other, tensor in state.items() if other != key})
        if key not in message or "miss" not in message:
            unnamed[key] = message
    assert unnamed == {}


@pytest.mark.slow
def test_each_misshapen_tensor_is_named(state):
    """One more along each axis; an axis more, in front; an axis less."""
    unnamed = {}
    for key, tensor in state.items():
        changed = {f"axis {axis} + 1": grown(tensor, axis) for axis in range(tensor.ndim)}
        changed["an axis more"] = tensor[None]
        if tensor.ndim:
            changed["an axis less"] = tensor.select(0, 0)
        for what, other in changed.items():
            if (key, what) == (POSITIONS, "axis 0 + 1"):
                continue  # the one size that nothing else tells: see the next test
            message = verdict({**state, key: other})
            if key not in message:
                unnamed[key, what] = message
    assert unnamed == {}


def grown(tensor, axis):
    return torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)


def test_more_positions_than_clip_has(state):
    """Not PENGI's, and a config that tells the number says so."""
    longer = {**state, POSITIONS: grown(state[POSITIONS], 0)}
    sizes = read_sizes(longer)
    with pytest.raises(CheckpointError, match="max_position_embeddings=77.*78"):
        check_config({"text": {"max_position_embeddings": 77}}, sizes, Path("tiny.pth"))


def test_fewer_positions_than_tokens(state, tmp_path):
    """Prompts have up to 40 tokens, so 30 positions cannot be right."""
    assert POSITIONS in refused(save(tmp_path, {**state, POSITIONS: state[POSITIONS][:30]}))


@pytest.mark.slow
def test_each_tensor_that_is_not_finite_is_named(state):
    """One value of it is NaN or infinite."""
    unnamed, values = {}, [float("nan"), float("inf"), float("-inf")]
    for n, (key, tensor) in enumerate(state.items()):
        if not tensor.is_floating_point():
            continue  # bn0's number of batches
        spoilt = tensor.clone()
        spoilt.view(-1)[-1] = values[n % 3]
        message = verdict({**state, key: spoilt})
        if key not in message:
            unnamed[key] = message
    assert unnamed == {}


@pytest.mark.parametrize(
    "key",
    [
        "audio_encoder.base.htsat.layers.0.blocks.0.attn.extra", "audio_encoder.base.cnn.weight",
        "audio_encoder.projection.linear3.weight",
        "caption_encoder.base.encoder.layers.0.self_attn.rope",
        "caption_encoder.extra.weight",
    ],
)  # fmt: skip
def test_unexpected_tensor_is_named(key, state):
    assert f"unexpected: {key} [2, 3]" in verdict({**state, key: torch.zeros(2, 3)})


@pytest.mark.parametrize("name", ["tiny.pth", "tiny.safetensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrong_tensors_through_a_file(name, prefix, state, tmp_path):
    """All that is wrong is in one message, with the file's name and the shape that was expected."""
    fc2 = "audio_encoder.base.htsat.layers.1.blocks.0.mlp.fc2.weight"
    wrong = {**state, fc2: state[fc2][:-1], "caption_encoder.new": torch.zeros(5)}
    del wrong[NORM], wrong[MEL]
    path = save(tmp_path, {prefix + key: tensor for key, tensor in wrong.items()}, name=name)
    message = refused(path)
    assert name in message and "missing: " + NORM in message and "missing: " + MEL in message
    assert "unexpected: caption_encoder.new [5]" in message
    assert (
        f"misshapen: {fc2} {list(wrong[fc2].shape)}, expected {list(state[fc2].shape)}" in message
    )


@pytest.mark.parametrize(
    "key", [TOKENS, NORM, MEL, HTSAT + "patch_embed.proj.weight", STFT + "conv_imag.weight"]
)
def test_missing_tensor_through_a_file(key, state, tmp_path):
    """The file is named, too, whichever check finds it."""
    path = save(tmp_path, {other: tensor for other, tensor in state.items() if other != key})
    message = refused(path)
    assert key in message and path.name in message


def test_nothing_of_one_encoder(state, tmp_path):
    for start in ("audio_encoder.", "caption_encoder."):
        path = save(
            tmp_path, {key: tensor for key, tensor in state.items() if not key.startswith(start)}
        )
        message = refused(path)
        assert start in message and path.name in message


def test_many_wrong_tensors_are_cut_short(state):
    message = verdict({**state, **{f"caption_encoder.extra{n}": torch.zeros(1) for n in range(50)}})
    assert len(message.splitlines()) < 30 and "30 more" in message


def test_last_layers_left_out(state, tmp_path):
    """A layer that is not there at all only makes a smaller model; a config that tells the
    number says so.
    """
    for layer, config in {
        "caption_encoder.base.encoder.layers.1.": {
            "text": {"num_hidden_layers": 2, "num_attention_heads": 4}
        },
        "audio_encoder.base.htsat.layers.3.blocks.1.": {"audio": {"depths": [2, 2, 2, 2]}, **HEADS},
    }.items():
        path = save(
            tmp_path, {k: t for k, t in state.items() if not k.startswith(layer)}, config=config
        )
        message = refused(path)
        assert path.name in message and (
            "num_hidden_layers=2" in message or "depths=[2, 2, 2, 2]" in message
        )


def test_layer_left_out_in_between(state):
    layer = "caption_encoder.base.encoder.layers.0."
    message = verdict({key: tensor for key, tensor in state.items() if not key.startswith(layer)})
    assert f"missing: {layer}" in message


# Kernels of the Fourier transform.


def kernels(state):
    return {
        key: state[key].clone() for key in (STFT + "conv_real.weight", STFT + "conv_imag.weight")
    }


def test_sign_of_the_transform_is_free(state, digest, tmp_path):
    """exp(+iwt) and exp(-iwt) have the same power: either is a Fourier transform."""
    key = STFT + "conv_imag.weight"
    assert load(tmp_path, {**state, key: -state[key]}).digest() == digest


def test_any_window_is_taken_from_the_kernels(state, tmp_path):
    window = torch.hamming_window(64)
    real, imag = stft_kernels(window, 33)
    pengi = load(
        tmp_path, {**state, STFT + "conv_real.weight": real, STFT + "conv_imag.weight": imag}
    )
    assert torch.equal(pengi.audio.window, window)


def scrambled(real, imag):
    sign = torch.where(
        torch.rand(imag.shape, generator=torch.Generator().manual_seed(0)) < 0.5, -1.0, 1.0
    )
    return real, imag * sign


@pytest.mark.parametrize(
    "change",
    [
        lambda real, imag: (torch.randn_like(real), torch.randn_like(imag)),
        lambda real, imag: (imag, real),
        lambda real, imag: (real.flip(0), imag.flip(0)),
        lambda real, imag: (real, torch.zeros_like(imag)),
        lambda real, imag: (real, 1.01 * imag),
        lambda real, imag: (real + 0.01 * torch.randn(real.shape), imag),
        lambda real, imag: (real + 3e-4 * torch.randn(real.shape).sign(), imag),
        lambda real, imag: (real.roll(1, 0), imag.roll(1, 0)),
        lambda real, imag: (-real, imag),
        scrambled,
    ],
    ids=[
        "noise",
        "swapped",
        "flipped",
        "no imag",
        "imag scaled",
        "real noisy",
        "real hardly noisy",
        "rolled",
        "negative",
        "scrambled",
    ],
)
def test_kernels_that_are_no_fourier_transform(change, state, tmp_path):
    """Learned or broken kernels must not be replaced by an FFT in silence.

    (-real, imag) is one, of the window -w; what counts is that the power is the same.
    """
    real, imag = change(*kernels(state).values())
    path = save(
        tmp_path, {**state, STFT + "conv_real.weight": real, STFT + "conv_imag.weight": imag}
    )
    try:
        pengi = load_pengi(path, device="cpu")
    except CheckpointError as error:
        assert "no windowed Fourier transform" in str(error) and STFT in str(error)
        return
    wave = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    spectrum = (
        torch.stft(wave, 64, 320, window=pengi.audio.window, center=False, return_complex=True)
        .abs()
        .square()
    )
    power = sum(
        torch.nn.functional.conv1d(wave[None], kernel, stride=320).square()
        for kernel in (real, imag)
    )
    torch.testing.assert_close(spectrum, power, rtol=1e-3, atol=1e-3)


# Files that are no checkpoint.


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def text(path, state):
    path.write_text("<html>404 not found</html>\n" * 20)


def empty(path, state):
    path.touch()


def truncated(path, state):
    save(path.parent, state, path.name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_at_the_end(path, state):
    save(path.parent, state, path.name)
    path.write_bytes(path.read_bytes()[:-50])


def lfs_pointer(path, state):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n")


def plain_text(path, state):
    path.write_text("weights to follow\n")


def pickled(path, state):
    path.write_bytes(pickle.dumps({"model": Path("x")}))


def noise(path, state):
    path.write_bytes(random.Random(0).randbytes(3000))


def a_list(path, state):
    torch.save([1, 2, 3], path)


def a_tensor(path, state):
    torch.save(torch.zeros(3), path)


def a_model_that_is_a_list(path, state):
    torch.save({"model": [torch.zeros(3)]}, path)


def others(path, state):
    torch.save({"model": {"encoder.weight": torch.zeros(3)}}, path)


def nothing(path, state):
    torch.save({}, path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (text, "web page"),
        (empty, "empty"),
        (truncated, "cut short or damaged"),
        (cut_at_the_end, "cut short or damaged"),
        (noise, "cut short or damaged"),
        (lfs_pointer, "git lfs pull"),
        (plain_text, "a text file"),
        (pickled, ""),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_file_that_is_no_checkpoint(make, reason, suffix, state, tmp_path):
    """In our own words: PyTorch's advise to let the file run its code."""
    path = tmp_path / f"tiny{suffix}"
    make(path, state)
    message = refused(path)
    assert str(path) in message and "no whole PyTorch or safetensors checkpoint" in message
    assert reason in message and "weights_only" not in message and "\n" not in message


@pytest.mark.parametrize("make", [a_list, a_tensor, a_model_that_is_a_list, others, nothing])
def test_checkpoint_of_something_else(make, state, tmp_path):
    path = tmp_path / "tiny.pth"
    make(path, state)
    message = refused(path)
    assert str(path) in message and "no PENGI encoder" in message


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_any_garbage_is_a_checkpoint_error(tmp_path):
    """Whatever the first bytes make the unpickler do."""
    rng, path = random.Random(1), tmp_path / "tiny.pth"
    for n in range(200):
        path.write_bytes((b"\x80\x02" if n % 2 else b"") + rng.randbytes(rng.randrange(1, 40)))
        try:
            load_pengi(path, device="cpu")
        except CheckpointError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("protocol", ["torch", "pickle", "wrapped"])
def test_code_in_a_checkpoint_does_not_run(protocol, state, tmp_path):
    mark, path = tmp_path / "code has run", tmp_path / "tiny.pth"
    if protocol == "pickle":
        path.write_bytes(pickle.dumps({"model": Payload(mark)}, protocol=2))
    else:
        torch.save(
            {**state, "x": Payload(mark)}
            if protocol == "torch"
            else {"model": state, "x": Payload(mark)},
            path,
        )
    message = refused(path)
    assert not mark.exists() and str(path) in message
    with open(path, "rb") as file:  # the payload does work where code is run
        pickle.load(file) if protocol == "pickle" else torch.load(path, weights_only=False)
    assert mark.exists()


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="palmkit fetch pengi") as caught:
        load_pengi(tmp_path / "base.pth")
    assert str(tmp_path / "base.pth") in str(caught.value)


def test_folder(tmp_path):
    (tmp_path / "base.pth").mkdir()
    with pytest.raises(
        (OSError, CheckpointError), match="folder|directory|no checkpoint"
    ) as caught:
        load_pengi(tmp_path / "base.pth")
    assert str(tmp_path / "base.pth") in str(caught.value)


# Config.


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"d_proj": 1024}, ("d_proj=1024", "16")),
        ({"audio": {"embed_dim": 96}}, ("audio.embed_dim=96", "8")),
        ({"audio": {"depths": [2, 2, 6, 2]}}, ("audio.depths=[2, 2, 6, 2]", "[2, 2, 2, 2]")),
        ({"text": {"hidden_size": 512, "num_attention_heads": 8}}, ("text.hidden_size=512", "8")),
        ({"audio": {"sampling_rate": 32_000}}, ("audio.sampling_rate=32000", "44100")),
        ({"audio": {"window": "blackman"}}, ("audio.window='blackman'", "'hann'")),
        ({"text": {"hidden_act": "gelu"}}, ("text.hidden_act='gelu'", "'quick_gelu'")),
        ({"logit_scale": 50.0}, ("logit_scale=50.0", "100.0")),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("beside", [True, False])
def test_config_that_contradicts(config, parts, beside, state, tmp_path):
    """Beside the checkpoint or given: it belongs to another checkpoint."""
    path = save(tmp_path, state, config=config if beside else HEADS)
    message = refused(path, config=None if beside else config)
    assert path.name in message and all(part in message for part in parts)


def test_config_of_another_checkpoint_beside_it(compact, state, tmp_path):
    """A full config.json, of a model of another size."""
    message = refused(save(tmp_path, state, name="mine.pth", config=compact.facts["config"]))
    assert "mine.pth" in message and "d_proj=64" in message and "16" in message


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", '{"text": 3}'])
def test_config_file_that_is_none(content, state, tmp_path):
    path = save(tmp_path, state)
    (tmp_path / "config.json").write_text(content)
    assert str(tmp_path / "config.json") in refused(path)


@pytest.mark.parametrize("config", [[1, 2], "config.json", {"text": 3}])
def test_given_config_that_is_none(config, state, tmp_path):
    message = refused(save(tmp_path, state), config=config)
    assert "config" in message and "`audio` and `text`" in message and "tiny.pth" in message


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"text": {"num_attention_heads": "4"}}, ("text.num_attention_heads='4'", "whole number")),
        ({"text": {"num_attention_heads": True}}, ("text.num_attention_heads=True",)),
        ({"text": {"num_attention_heads": 0}}, ("text.num_attention_heads=0",)),
        ({"text": {"layer_norm_eps": None}}, ("text.layer_norm_eps=None", "a number")),
        ({"text": {"enc_text_len": 40.0}}, ("text.enc_text_len=40.0",)),
        ({"audio": {"hop_size": -1}}, ("audio.hop_size=-1",)),
        ({"audio": {"hop_size": 10**20}}, ("audio.hop_size=1000",)),
        ({"audio": {"bn_momentum": 2}}, ("audio.bn_momentum=2", "below 1")),
        ({"audio": {"log_amin": float("nan")}}, ("audio.log_amin=nan",)),
        ({"audio": {"spec_size": 7}}, ("spec_size",)),
        ({"note": 3}, ("note=3", "a text")),
        ({"projection_dropout": [0.5]}, ("projection_dropout=[0.5]",)),
        ({"precision": None}, ("precision=None",)),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("beside", [True, False])
def test_config_of_wrong_types(config, parts, beside, state, tmp_path):
    """Beside the checkpoint or given: the field is named."""
    config = {**config, "text": HEADS["text"] | config.get("text", {})}
    path = save(tmp_path, state, config=config if beside else HEADS)
    message = refused(path, config=None if beside else config)
    assert "tiny.pth" in message and all(part in message for part in parts)


def test_given_config_wins_over_the_one_beside(state, tmp_path):
    path = save(tmp_path, state, config={"note": "beside", **HEADS})
    assert load_pengi(path, device="cpu").note == "beside"
    assert load_pengi(path, device="cpu", config={"note": "given", **HEADS}).note == "given"


def test_a_note_of_the_user_s_own_does_not_hide_the_checkpoint_s(state, tmp_path):
    pengi = load_pengi(save(tmp_path, state, config={"note": "beside", **HEADS}), device="cpu")
    for given in ("mine", "beside; mine"):
        pengi.note = given
        assert pengi.note == "beside; mine"
    pengi.note = ""
    pengi.note = "" or pengi.note  # as notebooks have it
    assert pengi.note == "beside"


@pytest.mark.parametrize("config", [None, {"note": "of something else"}])
def test_missing_heads_warn_where_the_size_is_not_pengi_s(config, state, tmp_path):
    """Without a config, or with one that does not tell them."""
    path = save(tmp_path, state, config=config)
    with pytest.warns(UserWarning, match="8 text heads.*config") as warned:
        load_pengi(path, device="cpu")
    assert path.name in str(warned[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pengi(path, device="cpu", config=HEADS)


def test_heads_that_do_not_divide_the_width(state, tmp_path):
    message = refused(save(tmp_path, state, config={"text": {"num_attention_heads": 5}}))
    assert "8" in message and "5 heads" in message


def test_heads_change_the_text(state, tmp_path):
    """The one size that no tensor tells, so a config is needed where it is not PENGI's."""
    path = save(tmp_path, state)
    four, two = (
        load_pengi(path, device="cpu", config={"text": {"num_attention_heads": n}}) for n in (4, 2)
    )
    assert four.digest() != two.digest() and four.digest("audio") == two.digest("audio")
    assert (four.encode_text(PROMPTS) - two.encode_text(PROMPTS)).abs().max() > 1e-3


# Prompts.


def test_prompt_that_does_not_fit(tiny_pengi):
    assert tiny_pengi.encode_text(["dog " * 38]).shape == (1, 64)
    with pytest.raises(ValueError, match="41 tokens.*40.*shorten") as caught:
        tiny_pengi.encode_text(["rain", "dog " * 39])
    assert "dog dog" in str(caught.value)


def test_prompts_that_are_none(tiny_pengi):
    for prompts in ("a dog", [1, 2], [None]):
        with pytest.raises(TypeError, match="list of strings"):
            tiny_pengi.encode_text(prompts)
    with pytest.raises(ValueError, match="no prompts"):
        tiny_pengi.encode_text([])


def test_digest_is_the_model_as_it_is_now(tiny_pengi):
    """Weights, config and preprocessing; the note is no part of it."""
    model = copy.deepcopy(tiny_pengi)
    audio, text, both = model.digest("audio"), model.digest("text"), model.digest()
    assert len({audio, text, both}) == 3
    model.note = "a note"
    model.config = model.config | {"note": "another"}
    assert model.digest() == both
    model.audio.bn0.running_var[3] *= 1.001
    assert model.digest("audio") != audio and model.digest("text") == text
    assert model.digest() != both


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [("text", "num_attention_heads", 2), ("audio", "hop_size", 640), (None, "precision", "x")],
)
def test_digest_covers_the_config(part, key, value, tiny_pengi):
    model = copy.copy(tiny_pengi)
    model.config = copy.deepcopy(tiny_pengi.config)
    (model.config[part] if part else model.config)[key] = value
    assert model.digest() != tiny_pengi.digest()
    for encoder in ("audio", "text"):
        assert (model.digest(encoder) != tiny_pengi.digest(encoder)) == (part == encoder)


def test_a_loaded_checkpoint_embeds(state, tmp_path, compact):
    """From file to embedding, with the helpers that notebooks use."""
    pengi = load(tmp_path, state)
    path = compact.preprocess / "j_44k_stereo_4s.flac"
    got = embed(pengi, [path], cache=None, crop="start").features
    assert (got - pengi.encode_audio(read_clip(path, crop="start")[None])).abs().max() < 1e-6


def test_a_missing_last_layer_of_pengi_itself_is_noticed():
    """base.pth comes without a config, and a shallower network is a network too."""
    for encoder, shallower in (
        ("audio", {"depths": [2, 2, 6]}),
        ("text", {"num_hidden_layers": 11}),
    ):
        sizes = PENGI_SIZES | {encoder: PENGI_SIZES[encoder] | shallower}
        with pytest.raises(CheckpointError, match=f"layers of the {encoder} encoder are missing"):
            check_depths(sizes)
    check_depths(PENGI_SIZES)


def test_a_config_may_spare_the_stft_kernels(state, digest, tmp_path):
    """They follow from the window; without that word they are missing, and named."""
    without = {key: tensor for key, tensor in state.items() if not key.startswith(STFT)}
    assert (
        load(tmp_path, without, config=HEADS | {"audio": {"stft": "computed"}}).digest() == digest
    )
    assert STFT in refused(save(tmp_path, without))
