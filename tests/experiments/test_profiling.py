"""Operation counts against PyTorch's own counter, and what the measuring measures."""

import copy
import time

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from palmkit import METHODS, load_pengi
from palmkit.experiments import profiling as efficiency

NAMES = ["dog", "cat bark", "snare drum loop", "rain", "wind on the sea"]


def counted(run) -> float:
    """Multiply-adds of what `run` really does."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def counted_audio(model) -> float:
    """Of one clip. The counter does not know the fused attention of a CPU."""
    encoder = copy.deepcopy(model.audio)
    for stage in encoder.trunk.layers:
        for block in stage.blocks:
            block.attn.fused_attn = False
    with torch.no_grad():
        return counted(lambda: encoder(torch.randn(1, 308_700)))


@pytest.fixture(scope="module")
def mini():
    return load_pengi("mini", "cpu")


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("zeroshot", {}),
        ("coop", {}),
        ("coop", {"context_length": 4}),
        ("cocoop", {}),
        ("palm", {}),
        ("palm-dagger", {}),
    ],
)
def test_operations_are_those_that_are_done(mini, key, options, batch):
    method = METHODS[key](mini, NAMES, **options)
    features, labels = torch.randn(batch, mini.dim), torch.arange(batch)
    counts = efficiency.operations(method, batch)
    forward = counted(lambda: efficiency.infer(method, features))
    assert counts["forward"] == forward
    step = counted(efficiency.train_step(method, method, features, labels))
    assert counts["backward"] == (step - forward if counts["trainable"] else 0)
    assert counts["trainable"] == sum(p.numel() for p in method.parameters())


def test_operations_of_chunks_that_are_computed_anew(mini):
    method = METHODS["cocoop"](mini, NAMES)
    method.max_tokens = 100
    features, labels = torch.randn(5, mini.dim), torch.arange(5)
    counts = efficiency.operations(method, 5)
    assert counts["forward"] + counts["backward"] == counted(
        efficiency.train_step(method, method, features, labels)
    )
    assert counts["backward"] > counts["forward"] * 1.9


def test_padded_operations_are_those_of_padded_prompts(mini):
    text, c = mini.text, len(NAMES)
    learned = torch.zeros(1, c, text.max_tokens, text.width, dtype=mini.dtype, requires_grad=True)

    def encode():  # the text encoder as the published code runs it, all tokens through all layers
        x = learned
        for layer in text.layers:
            x, _ = layer(x)
        return text.projection(text.clip_text_projection(x[0, :, -1]))

    forward, backward = efficiency.padded_operations(text, c)
    assert forward == counted(lambda: encode())
    assert forward + backward == counted(lambda: encode().sum().backward())
    palm, coop, cocoop = (
        efficiency.operations(METHODS[key](mini, NAMES), 4, padded=True)
        for key in ("palm", "coop", "cocoop")
    )
    assert palm["forward"] == coop["forward"] and palm["backward"] < coop["backward"] / 1000
    assert cocoop["forward"] > 3.9 * coop["forward"]


def test_operations_of_the_audio_encoder(mini):
    assert efficiency.audio_operations(mini.audio) == counted_audio(mini)


@pytest.mark.slow
def test_operations_at_full_size():
    from palmkit.models.random import random_pengi

    pengi = random_pengi("cpu")
    for key, trainable in (("coop", 8_192), ("cocoop", 107_072), ("palm", 5 * 1025)):
        method = METHODS[key](pengi, NAMES)
        counts = efficiency.operations(method, 2)
        step = counted(efficiency.train_step(method, method, torch.randn(2, 1024), torch.arange(2)))
        assert (counts["forward"] + counts["backward"], counts["trainable"]) == (step, trainable)
    done = counted_audio(pengi)
    assert efficiency.audio_operations(pengi.audio) == pytest.approx(done, rel=1e-6)


@pytest.mark.parametrize("key", ["zeroshot", "coop", "palm", "palm-dagger"])
def test_stored_text_gives_the_same_logits(mini, key):
    method = METHODS[key](mini, NAMES)
    features = torch.randn(5, mini.dim)
    text = efficiency.stored_text(method)
    assert text.shape == (len(NAMES), mini.dim)
    stored = efficiency.stored_logits(method, text, features)
    torch.testing.assert_close(stored, efficiency.infer(method, features), rtol=1e-4, atol=1e-3)
    count = counted(lambda: efficiency.stored_logits(method, text, features))
    assert count == 5 * len(NAMES) * mini.dim


def test_text_that_depends_on_the_clip_is_not_stored(mini):
    with pytest.raises(ValueError, match="COCOOP depend on the clip"):
        efficiency.stored_text(METHODS["cocoop"](mini, NAMES))


@pytest.mark.parametrize(
    ("device", "cores", "threads"),
    [("cpu", 1, [1]), ("cpu", 2, [2, 1]), ("cpu", 8, [8, 1, 2]), ("cuda", 8, [8])],
)
def test_threads_to_measure_with(device, cores, threads):
    assert efficiency.thread_counts(torch.device(device), cores) == threads


def test_settings_vary_one_thing_at_a_time():
    found = efficiency.settings(50)
    assert efficiency.BASE in found and len(found) == 10 and len(efficiency.settings(10)) == 8
    for setting in found:
        assert sum(setting[name] != efficiency.BASE[name] for name in setting) <= 1


@pytest.mark.slow
def test_the_stopwatch_takes_turns_and_the_median():
    turns = []

    def run(name, seconds):
        turns.append(name)
        time.sleep(seconds)

    measured = efficiency.Stopwatch(torch.device("cpu"), 3)(
        a=lambda: run("a", 0.06), b=lambda: run("b", 0.12)
    )
    assert "".join(turns) == "abababab"  # memory, untimed; then three each
    assert 0.06 <= measured["a"]["fastest"] <= measured["a"]["seconds"] <= measured["a"]["slowest"]
    assert measured["b"]["fastest"] >= 0.12


def test_peak_memory_is_what_a_run_takes():
    peak = efficiency.Stopwatch(torch.device("cpu"), 1).peak_memory(
        lambda: torch.ones(64, 2**20).sum()
    )
    assert 240 < peak < 400  # MiB


@pytest.mark.slow
def test_measure(mini, monkeypatch):
    monkeypatch.setattr(efficiency, "VARIED", {"batch": (2, 16), "context": (4,)})
    monkeypatch.setattr(efficiency, "BASE", {"batch": 2, "classes": 3, "context": 16})
    before = {name: tensor.clone() for name, tensor in mini.audio.state_dict().items()}
    digest, messages = mini.digest(), []
    options = dict(repeats=1, longest=0.5, on_progress=messages.append)
    table = efficiency.measure(mini, NAMES, **options, published=lambda method: method.forward)
    assert mini.digest() == digest and not mini.audio.training  # nothing was left behind
    assert all(
        torch.equal(before[name], tensor) for name, tensor in mini.audio.state_dict().items()
    )
    assert not any(parameter.requires_grad for parameter in mini.audio.parameters())
    assert len(messages) >= 3
    steps = table[table["what"] == "training step"]
    assert set(steps["method"]) == {"coop", "cocoop", "palm"}
    assert set(zip(steps["batch"], steps["context"], strict=True)) == {(2, 16), (16, 16), (2, 4)}
    published = table[table["what"] == efficiency.PUBLISHED].set_index("method")
    padded = efficiency.operations(METHODS["palm"](mini, NAMES[:3]), 2, padded=True)
    assert published.loc["palm", "forward"] == padded["forward"] and len(published) == 3
    stored = table[(table["what"] == efficiency.STORED) & (table["batch"] == 2)]
    assert set(stored["method"]) == {"zeroshot", "coop", "palm"}
    assert set(stored["forward"]) == {2 * 3 * mini.dim} and (stored["backward"] == 0).all()
    fits = table[table["what"] == "fit"].set_index("method")
    epochs = table[table["what"] == "epoch"].set_index("method")
    assert (
        fits.loc["cocoop", "computed"]
        and fits.loc["cocoop", "seconds"] == 50 * epochs.loc["cocoop", "seconds"]
    )
    assert {"encode", "encode, backward"} <= set(table["what"]) and (table["seconds"] > 0).all()
    assert (table["fastest"] <= table["seconds"]).all() and (
        table["seconds"] <= table["slowest"]
    ).all()
    assert set(table["model"]) == {mini.note} and pd.api.types.is_integer_dtype(table["forward"])
