"""What is computed at once: chunks change no result, and too little memory halves them."""

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from small_memory import CPU, GPU, SmallMemory

from palmkit import METHODS, CoCoOp, CoOp, embed, fit, load_pengi, predict
from palmkit.chunks import MOST_TOKENS, take_gradient, token_bytes, tokens_in_memory
from palmkit.experiments.executor import Failure, attempt
from palmkit.memory import OutOfMemory, free_memory, memory_for_chunks, stated_memory
from palmkit.methods.base import Method, normalize
from palmkit.protocols.train_mode import text_dropout
from palmkit.training import mean_loss

pytestmark = pytest.mark.slow

NAMES = ["vacuum cleaner", "dog", "rain", "glockenspiel", "a very small bell"]
SETTINGS = {"epochs": 2, "batch_size": 8, "lr": 0.01}
CLIPS = 18


@pytest.fixture(scope="module", autouse=True)
def threads(one_thread):
    """Tensors are tiny here."""


@pytest.fixture(scope="module")
def mini():
    return load_pengi("mini", device="cpu")


@pytest.fixture(autouse=True)
def unsaid(monkeypatch):
    """Warnings that another test has shown are shown again."""
    monkeypatch.setattr("palmkit.chunks._said", set())
    monkeypatch.delenv("PALMKIT_MEMORY", raising=False)


def data(model, n=CLIPS):
    features = torch.randn(n, model.dim, generator=torch.Generator().manual_seed(1))
    return F.normalize(features, dim=-1), torch.arange(n) % len(NAMES)


def train(cls, model, dropout=None, **settings):
    """(parameters, losses, test logits, the generator's state after it) of a fit."""
    method = cls(model, NAMES, seed=3)
    torch.manual_seed(5)
    if dropout is None:
        losses = fit(method, *data(model), seed=2, **SETTINGS, **settings)
    else:
        with text_dropout(dropout, 11):
            losses = fit(method, *data(model), seed=2, **SETTINGS, **settings)
            torch.set_rng_state(torch.get_rng_state())
            drawn = torch.rand(3)
    logits = predict(method, data(model)[0])
    drawn = torch.rand(3) if dropout is None else drawn
    return {
        **method.prompt_learner_state(),
        "losses": torch.tensor(losses),
        "logits": logits,
    }, drawn


def assert_same(found, expected):
    """To 1e-9 of the largest number; mini-PENGI computes in double precision."""
    (tensors, drawn), (others, also_drawn) = found, expected
    assert torch.equal(drawn, also_drawn), "other random numbers were drawn"
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        error = (tensor - others[name]).abs().max() / others[name].abs().max()
        assert error < 1e-9, f"{name}: {error}"


def warnings_of(caplog):
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


# Less memory than was thought.


@pytest.mark.parametrize("error", [GPU, CPU], ids=["gpu", "cpu"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_cocoop_goes_on_with_half(mini, caplog, error, backward):
    """From 8 clips of 5 prompts to 4 and to 2: same parameters, losses, logits, random numbers."""
    expected = train(CoCoOp, mini)
    small = SmallMemory(mini, prompts=10, error=error, backward=backward)
    assert_same(train(CoCoOp, small), expected)
    assert max(small.sizes) == 10 and small.failed == 2
    said = [line for line in warnings_of(caplog) if line.startswith("cocoop: the memory of cpu")]
    assert [line.partition("goes on ")[2] for line in said] == [
        "from 40 to 20 prompts at once",
        "from 20 to 10 prompts at once",
    ]
    assert len(warnings_of(caplog)) == 2


@pytest.mark.parametrize("prompts", [1, 2, 3])
@pytest.mark.parametrize("cls", [CoOp, CoCoOp])
def test_the_prompts_of_one_clip_are_split(cls, prompts, mini, caplog):
    expected = train(cls, mini)
    # Two classes are measured before the fit, which must not count.
    method_model = SmallMemory(mini, prompts=10**9)
    method = cls(method_model, NAMES, seed=3)
    method_model.prompts = prompts
    torch.manual_seed(5)
    losses = fit(method, *data(mini), seed=2, **SETTINGS)
    logits, drawn = predict(method, data(mini)[0]), torch.rand(3)
    state = method.prompt_learner_state()
    assert_same(({**state, "losses": torch.tensor(losses), "logits": logits}, drawn), expected)
    assert method.prompts_at_once(8)[0] == 1 and method.prompts_at_once(8)[1] <= prompts
    assert f"to {method.prompts_at_once(8)[1]} prompts at once" in warnings_of(caplog)[-1]


@pytest.mark.parametrize("name", ["palm", "coop", "cocoop"])
def test_text_dropout_draws_the_same(name, mini):
    """In the released protocol the text projection is random: once for a step, not for a chunk."""
    cls = METHODS[name]
    expected = train(cls, mini, dropout=mini)
    plain = train(cls, mini)[0]
    assert (plain["losses"] - expected[0]["losses"]).abs().max() > 1e-3, "nothing was random"
    assert_same(_limited(cls, mini), expected)


def _limited(cls, model):
    """`train` with text dropout where 3 prompts, or 3 clips, fit."""

    class Limited(cls):
        def forward(self, audio_features):
            if torch.is_grad_enabled() and name == "palm" and len(audio_features) > 3:
                raise GPU
            return super().forward(audio_features)

    name = cls.name
    small = SmallMemory(model)
    made = Limited(small, NAMES, seed=3)
    small.prompts = 3
    found = train(lambda *_, **__: made, model, dropout=model)
    # A CPU draws for two chunks as for both together, and a GPU does not.
    whole = {"palm": set(), "coop": {5}, "cocoop": {8 * 5, 2 * 5}}[name]
    assert set(small.projected) == whole
    return found


class PerClip(Method):
    """A method of one's own, which knows nothing of chunks."""

    name = "per-clip"
    most = 10**9
    sizes: list[int] = []

    def __init__(self, model, class_names, seed=0):
        super().__init__(model, class_names, seed)
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(len(self.class_names), model.dim, generator=generator)
        self.w = torch.nn.Parameter(weights.to(model.dtype))

    def forward(self, audio_features):
        if len(audio_features) > self.most:
            raise GPU
        self.sizes.append(len(audio_features))
        return self.logits(audio_features, normalize(self.w))


def test_any_method_takes_fewer_clips(mini, caplog, monkeypatch):
    """8 clips in a step and 18 in a test; the last batch of an epoch is of 2."""
    expected = train(PerClip, mini)
    monkeypatch.setattr(PerClip, "most", 3)
    monkeypatch.setattr(PerClip, "sizes", [])
    assert_same(train(PerClip, mini), expected)
    assert PerClip.sizes[:4] == [2, 2, 2, 2] and max(PerClip.sizes) == 2
    assert [line.partition("goes on ")[2] for line in warnings_of(caplog)] == [
        "from 8 to 4 clips at once",
        "from 4 to 2 clips at once",
    ]


def test_a_step_that_failed_halfway(mini):
    """Its second chunk fails once. The gradient is that of the plain loss, in the next step too."""
    features, labels = data(mini, 8)
    plain = CoCoOp(mini, NAMES, seed=3)
    F.cross_entropy(plain(features), labels).backward()
    small = SmallMemory(mini)
    method = CoCoOp(small, NAMES, seed=3)
    method.max_tokens = 4 * method.prompt_tokens
    encode, calls = small.encode_embeddings, []

    def fail_second(*arguments):
        calls.append(len(arguments[0]))
        if len(calls) == 2:
            raise GPU
        return encode(*arguments)

    small.encode_embeddings = fail_second
    for _ in range(2):
        take_gradient(method, mean_loss, method.zero_grad, features, labels)
        for ours, expected in zip(method.parameters(), plain.parameters(), strict=True):
            assert (ours.grad - expected.grad).abs().max() <= 1e-9 * expected.grad.abs().max()
    assert calls == [4, 4, *[2] * 8]


def test_a_warning_is_shown_once(mini, caplog, monkeypatch):
    monkeypatch.setattr(PerClip, "most", 4)
    for _ in range(3):
        train(PerClip, mini)
    assert len(warnings_of(caplog)) == 1


def test_one_clip_that_does_not_fit(mini, monkeypatch):
    """What PyTorch said stays, with what to do about it."""
    monkeypatch.setattr(PerClip, "most", 0)
    failure = attempt(train, PerClip, mini)
    assert isinstance(failure, Failure)
    assert failure.message.startswith(
        "the memory is too small for this trial: a smaller batch_size"
    )
    assert "CUDA out of memory" in failure.message


def test_one_prompt_that_does_not_fit(mini):
    small = SmallMemory(mini)
    method = CoCoOp(small, NAMES)
    small.prompts = 0
    with pytest.raises(torch.OutOfMemoryError):
        fit(method, *data(mini), **SETTINGS)
    assert method.prompts_at_once(8) == (1, 1)


def test_other_errors_halve_nothing(mini, monkeypatch, caplog):
    monkeypatch.setattr(PerClip, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(PerClip, mini)
    assert not warnings_of(caplog)


def test_transductive_methods_are_not_split(mini, monkeypatch):
    """Their logits of a clip depend on the others."""
    monkeypatch.setattr(PerClip, "transductive", True, raising=False)
    monkeypatch.setattr(PerClip, "most", 3)
    with pytest.raises(torch.OutOfMemoryError):
        predict(PerClip(mini, NAMES), data(mini)[0])


def test_aspl_takes_fewer_clips(mini, caplog):
    """Its memory is the audio encoder's, and that of the prompts."""
    cls = METHODS["coop-aspl"]

    class Limited(cls):
        most = 10**9

        def encode_inputs(self, inputs):
            if len(inputs) > self.most:
                raise GPU
            return super().encode_inputs(inputs)

    found = []
    for most in (10**9, 2):
        method = Limited(mini, NAMES, seed=1)
        method.most = most
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(5, method.input_dim, generator=generator)
        fit(method, inputs, torch.arange(5), epochs=1, batch_size=5, lr=0.01)
        found.append(method.prompt_learner_state())
    for key, value in found[0].items():
        assert (value - found[1][key]).abs().max() <= 1e-6 * value.abs().max(), key
    assert "from 5 to 2 clips at once" in warnings_of(caplog)[0]


# The memory that is stated.


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("1.5 gb", 15 * 10**8), ("200 MB", 2 * 10**8), ("", None)],
)
def test_stated_memory(text, size, monkeypatch):
    monkeypatch.setenv("PALMKIT_MEMORY", text)
    assert stated_memory() == size
    half = free_memory(torch.device("cpu")) / 2
    expected = half if size is None else size
    assert abs(memory_for_chunks(torch.device("cpu")) - expected) <= (0.2 * half if not size else 0)


@pytest.mark.parametrize("text", ["4", "GB", "0GB", "-1GB", "0.0001MB", "4 TB", "much"])
def test_a_size_that_is_none(text, monkeypatch, mini):
    monkeypatch.setenv("PALMKIT_MEMORY", text)
    with pytest.raises(ValueError, match=f"PALMKIT_MEMORY={text}: use a size over 0 in MB or GB"):
        CoOp(mini, NAMES)


@pytest.mark.parametrize("cls", [CoOp, CoCoOp])
def test_chunks_keep_to_the_stated_memory(cls, mini, monkeypatch):
    """What autograd holds at once is below it, and at its best near it; the result is the same."""
    names = [f"class number {n}" for n in range(40)]
    features, labels = data(mini, 16)
    found = {}
    for memory in ("2 GB", "2 MB"):
        monkeypatch.setenv("PALMKIT_MEMORY", memory)
        method = cls(mini, names, seed=3)
        held = Held()
        with torch.autograd.graph.saved_tensors_hooks(held.pack, held.unpack):
            take_gradient(method, mean_loss, method.zero_grad, features, labels)
        found[memory] = held.most, [one.grad for one in method.parameters()]
    whole, most = found["2 GB"][0], found["2 MB"][0]
    assert most < 2e6 < whole
    for ours, expected in zip(found["2 MB"][1], found["2 GB"][1], strict=True):
        assert (ours - expected).abs().max() <= 1e-9 * expected.abs().max()


class Held:
    """Bytes of tensors that autograd holds; parameters of the frozen model are held anyway."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        return Kept(tensor, self)

    def unpack(self, kept):
        return kept.tensor


class Kept:
    def __init__(self, tensor, held):
        self.tensor, self.held = tensor, held
        self.size = tensor.nbytes if tensor.ndim > 2 else 0  # weights have 2 axes at most
        held.now += self.size
        held.most = max(held.most, held.now)

    def __del__(self):
        self.held.now -= self.size


def test_default_is_stable(mini, monkeypatch):
    """Without a stated size, results do not depend on the free memory where there is enough."""
    assert CoCoOp(mini, NAMES).max_tokens == MOST_TOKENS
    monkeypatch.setattr("palmkit.memory.free_memory", lambda device: 4 * 10**6)
    few = CoCoOp(mini, NAMES).max_tokens
    assert 1 <= few < MOST_TOKENS
    monkeypatch.setattr("palmkit.memory.free_memory", lambda device: 0)
    assert CoCoOp(mini, NAMES).max_tokens == 1


def test_measuring_draws_no_random_number(mini):
    method = CoCoOp(mini, NAMES)
    before = torch.get_rng_state()
    with text_dropout(mini, 0):
        inside = torch.get_rng_state()
        tokens_in_memory(method)
        assert torch.equal(inside, torch.get_rng_state())
    assert torch.equal(before, torch.get_rng_state())
    assert token_bytes(method) > 1000 and method.context.grad is None


def test_chunked_methods_can_be_copied(mini):
    method = copy.deepcopy(CoCoOp(mini, NAMES))
    assert method.clips_at_once(16) == 16


# Embedding.


def test_embedding_goes_on_with_half(mini, caplog, sounds):
    expected = embed(mini, sounds, cache=None)
    small = SmallMemory(mini, clips=3)
    found = embed(small, sounds, cache=None, batch_size=16)
    assert torch.equal(found.features, expected.features) and found.paths == expected.paths
    assert small.failed == 2 and max(small.sizes) == 2
    assert warnings_of(caplog) == [
        "embedding: the memory of cpu is too small; it goes on from 9 to 4 clips at once",
        "embedding: the memory of cpu is too small; it goes on from 4 to 2 clips at once",
    ]


def test_a_clip_that_does_not_fit(mini, sounds):
    with pytest.raises(OutOfMemory, match="too small for mini to embed one clip of 7 s") as caught:
        embed(SmallMemory(mini, clips=0, error=CPU), sounds, cache=None)
    said = attempt(embed, SmallMemory(mini, clips=0), sounds, None)
    assert said.message == f"OutOfMemory: {caught.value}"


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Nine short files."""
    import soundfile

    folder = tmp_path_factory.mktemp("sounds")
    for n in range(9):
        samples = torch.randn(8000, generator=torch.Generator().manual_seed(n)) / 10
        soundfile.write(folder / f"{n}.wav", samples.numpy(), 44_100)
    return sorted(map(str, folder.glob("*.wav")))
