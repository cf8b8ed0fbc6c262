"""Methods and their training: what they refuse, what repeats, what stays frozen, and how a score
is computed.
"""

import copy
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from palmkit import METHODS, PALM, CoCoOp, CoOp, TrainingDiverged, ZeroShot, evaluate, fit, predict
from palmkit.methods import PALMDagger
from palmkit.models.encoders import tokenize

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ["vacuum cleaner", "dog", "rain", "glockenspiel"]
LEARNED = ["coop", "cocoop", "palm"]
SEEDED = [*LEARNED, "malp", "cross-modal-probe"]  # on 22 clips, the others have no random part
# On embeddings of one model; test_aspl.py and test_product_kernel.py in tests/methods have the
# others.
EVERY = [name for name, cls in METHODS.items() if not (cls.tunes_audio or cls.needs_pair)]


def data(n=22, dim=64, classes=4, seed=0):
    """Features [n, dim] around one centre for each class, and labels [n]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    return F.normalize(centres[labels] + torch.randn(n, dim, generator=generator), dim=-1), labels


@pytest.fixture(params=LEARNED)
def learned(request, tiny_pengi):
    return METHODS[request.param](tiny_pengi, NAMES)


@pytest.fixture(params=EVERY)
def make(request, tiny_pengi):
    """A method's constructor, given class names."""
    return lambda names=NAMES, **kwargs: METHODS[request.param](tiny_pengi, names, **kwargs)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# Class names.


@pytest.mark.parametrize("names", [[], ["dog"]])
def test_too_few_classes(names, make):
    with pytest.raises(ValueError, match="two classes or more") as caught:
        make(names)
    assert str(names) in str(caught.value)


@pytest.mark.parametrize("names", [["dog", "rain", "dog"], ["dog", ""], ["dog", "  "]])
def test_class_names_that_are_not_distinct_or_empty(names, make):
    with pytest.raises(ValueError, match="distinct and not empty") as caught:
        make(names)
    assert str(names) in str(caught.value)


def test_one_string_is_no_list_of_classes(make):
    """It would be taken letter by letter."""
    with pytest.raises((TypeError, ValueError), match="list"):
        make("dog")


def test_class_names_may_be_any_sequence(make):
    assert make(tuple(NAMES)).class_names == make(np.array(NAMES)).class_names == NAMES


@pytest.mark.parametrize(
    ("name", "fits"), [("zeroshot", 32), ("coop", 21), ("cocoop", 21), ("palm", 38)]
)
def test_class_name_that_does_not_fit(name, fits, tiny_pengi):
    """40 tokens, of which the prompt or the 16 of the context take their share: the longest that
    fits, and one more.
    """
    METHODS[name](tiny_pengi, ["rain", " ".join(["dog"] * fits)])
    with pytest.raises(
        ValueError, match="has 41 tokens; the text encoder takes 40: shorten it"
    ) as caught:
        METHODS[name](tiny_pengi, ["rain", " ".join(["dog"] * (fits + 1))])
    assert "dog dog dog" in str(caught.value)


def test_braces_in_a_class_name(make):
    """Class names are data, no format strings."""
    assert make(["{}", "{0} {name}"]).class_names == ["{}", "{0} {name}"]


# States.


def test_state_with_names_missing_or_unknown(learned):
    state = learned.prompt_learner_state()
    before = copy.deepcopy(state)
    name = type(learned).__name__
    for key in state:
        with pytest.raises(ValueError, match=rf"no.* state of {name}.*missing \['{key}'\]"):
            learned.load_prompt_learner(
                {other: value for other, value in state.items() if other != key}
            )
    with pytest.raises(ValueError, match=r"unknown \['token_prefix'\]"):
        learned.load_prompt_learner({**state, "token_prefix": torch.zeros(1)})
    assert same(learned.prompt_learner_state(), before)


def test_state_with_a_misshapen_tensor(learned):
    """Named, and nothing is taken from a state of which something does not fit."""
    state = learned.prompt_learner_state()
    before = copy.deepcopy(state)
    for key, value in state.items():
        wrong = {other: tensor + 1 for other, tensor in state.items()} | {
            key: torch.cat([value, value])
        }
        with pytest.raises(ValueError, match="state of another") as caught:
            learned.load_prompt_learner(wrong)
        assert (
            f"{key} is {[2 * len(value), *value.shape[1:]]}, expected {list(value.shape)}"
            in str(caught.value)
        )
    assert same(learned.prompt_learner_state(), before)


@pytest.mark.parametrize("cls", [CoOp, CoCoOp])
@pytest.mark.parametrize("buffer", ["classes_pad", "sos"])
def test_state_for_another_number_of_classes(cls, buffer, tiny_pengi):
    """Shared context fits any classes; the buffers beside it tell that it was learned for
    others.
    """
    method = cls(tiny_pengi, NAMES)
    state = method.prompt_learner_state()
    method.load_prompt_learner({**state, buffer: torch.zeros(4, 24, 32)})
    with pytest.raises(ValueError, match=f"{buffer} is for 5 classes, not 4"):
        method.load_prompt_learner({**state, buffer: torch.zeros(5, 24, 32)})


def test_state_of_another_number_of_classes(tiny_pengi):
    with pytest.raises(ValueError, match=r"ctx is \[4, 64\], expected \[2, 64\]"):
        PALM(tiny_pengi, NAMES[:2]).load_prompt_learner(
            PALM(tiny_pengi, NAMES).prompt_learner_state()
        )


def test_state_is_a_copy(learned):
    state = learned.prompt_learner_state()
    for value in state.values():
        value.fill_(7)
    assert not any((value == 7).all() for value in learned.prompt_learner_state().values())


@pytest.mark.parametrize("name", ["zeroshot", "palm-dagger"])
def test_nothing_learned_has_an_empty_state(name, tiny_pengi):
    method = METHODS[name](tiny_pengi, NAMES)
    assert method.prompt_learner_state() == {} and list(method.parameters()) == []
    method.load_prompt_learner({})
    with pytest.raises(ValueError, match="unknown"):
        method.load_prompt_learner({"ctx": torch.zeros(1)})


# Features and labels.


def spoilt(value):
    features, labels = data()
    features[3, 5] = value
    return features, labels


def relabelled(value):
    features, labels = data()
    labels[7] = value
    return features, labels


FEATURES, LABELS = data()
BAD = {
    "NaN": (spoilt(float("nan")), "NaN or infinite"),
    "infinite": (spoilt(float("inf")), "NaN or infinite"),
    "label too large": (relabelled(4), r"labels must lie in 0\.\.3, got 0\.\.4"),
    "label negative": (relabelled(-1), r"labels must lie in 0\.\.3, got -1\.\.3"),
    "too few labels": ((FEATURES, LABELS[:-1]), r"\[22, 64\] and \[21\]"),
    "too many labels": ((FEATURES[:-1], LABELS), r"\[21, 64\] and \[22\]"),
    "one feature": ((FEATURES[0], LABELS[:1]), r"\[64\] and \[1\]"),
    "an axis too many": ((FEATURES[None], LABELS[:1]), r"\[1, 22, 64\] and \[1\]"),
    "empty": ((FEATURES[:0], LABELS[:0]), r"\[0, 64\] and \[0\]"),
    "other width": ((FEATURES[:, :63], LABELS), r"\[22, 63\]"),
    "labels of two axes": ((FEATURES, F.one_hot(LABELS)), r"\[22, 64\] and \[22, 4\]"),
}


@pytest.mark.parametrize("use", [fit, evaluate])
@pytest.mark.parametrize("cls", [ZeroShot, PALM])
@pytest.mark.parametrize("case", BAD)
def test_features_and_labels_that_do_not_fit(case, cls, use, tiny_pengi):
    (features, labels), reason = BAD[case]
    method = cls(tiny_pengi, NAMES)
    before = method.prompt_learner_state()
    with pytest.raises(ValueError, match=reason):
        use(method, features, labels)
    assert same(method.prompt_learner_state(), before)


def test_arrays_and_lists_are_taken(learned):
    before = learned.prompt_learner_state()
    losses = fit(learned, FEATURES, LABELS, epochs=1)
    learned.load_prompt_learner(before)
    assert fit(learned, FEATURES.numpy().astype("float64"), LABELS.tolist(), epochs=1) == losses
    assert evaluate(learned, FEATURES.numpy(), LABELS.numpy()) == evaluate(
        learned, FEATURES, LABELS
    )


# Training.


@pytest.mark.parametrize("name", LEARNED)
def test_diverged_training_is_an_error(name, tiny_pengi):
    method = METHODS[name](tiny_pengi, NAMES)
    with pytest.raises(
        TrainingDiverged, match=r"not finite from step \d+ on; lower lr=1e\+38"
    ) as caught:
        fit(method, FEATURES, LABELS, lr=1e38, epochs=6)
    assert "from step 0 " not in str(caught.value)  # the first loss is that of the initial values


def test_training_learns(learned):
    before = evaluate(learned, FEATURES, LABELS)
    losses = fit(learned, FEATURES, LABELS, epochs=10)
    after = evaluate(learned, FEATURES, LABELS)
    assert np.mean(losses[-2:]) < np.mean(losses[:2]) and after["loss"] < before["loss"]


def test_loss_is_the_one_before_the_update(learned):
    expected = F.cross_entropy(learned(FEATURES), LABELS).item()
    assert fit(learned, FEATURES, LABELS, batches=[range(len(LABELS))]) == [
        pytest.approx(expected, rel=1e-5)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_same_seed_repeats_exactly_and_another_differs(name, tiny_pengi):
    def run(seed):
        torch.manual_seed(random.randrange(1000))  # what ran before does not matter
        method = METHODS[name](tiny_pengi, NAMES, seed=seed)
        losses = fit(method, FEATURES, LABELS, epochs=2, batch_size=8, seed=seed)
        return losses, method.prompt_learner_state()

    (losses, state), (again, state_again), (other, _) = run(0), run(0), run(1)
    assert losses == again and same(state, state_again)
    if name in SEEDED:
        assert losses != other


def test_seed_of_fit_is_the_order_of_the_clips(learned):
    before, runs = learned.prompt_learner_state(), []
    for seed in (0, 0, 1):
        learned.load_prompt_learner(before)
        runs.append(fit(learned, FEATURES, LABELS, epochs=1, batch_size=4, seed=seed))
    assert runs[0] == runs[1] != runs[2]


def test_global_generators_are_left_alone(learned):
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    fit(learned, FEATURES, LABELS, epochs=2)
    evaluate(learned, FEATURES, LABELS)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def seen(method, **kwargs):
    """The clips of each step, known by their features."""
    batches = []
    hook = method.register_forward_hook(lambda module, inputs, output: batches.append(inputs[0]))
    fit(method, FEATURES, LABELS, **kwargs)
    hook.remove()
    return [[int((row == FEATURES).all(1).nonzero()) for row in batch] for batch in batches]


def test_last_short_batch_is_kept(tiny_pengi):
    """22 clips in batches of 8: three steps an epoch, each clip once, in another order each
    time.
    """
    steps = seen(PALM(tiny_pengi, NAMES), epochs=3, batch_size=8)
    assert [len(step) for step in steps] == [8, 8, 6] * 3
    orders = [sum(steps[start : start + 3], []) for start in (0, 3, 6)]
    assert all(sorted(order) == list(range(22)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize(
    "kind", [list, iter, lambda batches: (np.array(batch) for batch in batches)]
)
def test_explicit_batches(kind, tiny_pengi):
    """Any sequence or generator, one step each, in place of epochs and shuffling; a method that
    is fitted reads it.
    """
    batches = [[0, 5, 5], [21], [3, 4, 1, 2]]
    assert seen(PALM(tiny_pengi, NAMES), batches=kind(batches), epochs=7) == batches


def test_nothing_to_do(tiny_pengi):
    method = PALM(tiny_pengi, NAMES)
    before = method.prompt_learner_state()
    assert (
        fit(method, FEATURES, LABELS, epochs=0) == [] == fit(method, FEATURES, LABELS, batches=[])
    )
    assert same(method.prompt_learner_state(), before)
    assert fit(ZeroShot(tiny_pengi, NAMES), FEATURES, LABELS) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_defaults_are_the_paper_s(name, tiny_pengi):
    """Left alone, training is that of the paper: 50 epochs, batches of 16, lr 0.05, momentum
    0.9.
    """
    paper = dict(epochs=50, batch_size=16, lr=0.05, momentum=0.9, seed=0)
    features = FEATURES[:11].repeat(2, 1)  # each with two labels, so that no loss becomes 0

    def train(**settings):
        return fit(METHODS[name](tiny_pengi, NAMES), features, LABELS, **settings)

    losses = train()
    assert losses == train(**paper) and len(losses) == 50 * 2
    for key, value in {"lr": 0.04, "momentum": 0.8, "seed": 1, "batch_size": 11}.items():
        assert losses != train(**{**paper, key: value}), key


def test_momentum_and_no_weight_decay(tiny_pengi):
    """Two steps of SGD by hand."""
    method, by_hand = PALM(tiny_pengi, NAMES), PALM(tiny_pengi, NAMES)
    fit(method, FEATURES, LABELS, batches=[range(22)] * 3, lr=0.05)
    velocity = {key: torch.zeros_like(value) for key, value in by_hand.named_parameters()}
    for _ in range(3):
        by_hand.zero_grad()
        F.cross_entropy(by_hand(FEATURES), LABELS).backward()
        with torch.no_grad():
            for key, value in by_hand.named_parameters():
                velocity[key] = 0.9 * velocity[key] + value.grad
                value -= 0.05 * velocity[key]
    for got, expected in zip(method.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


# Frozen means frozen.


def test_encoders_stay_as_they_are(make, tiny_pengi):
    """Weights, gradients, modes and requires_grad, after training and evaluation of each method."""
    before = tiny_pengi.digest()
    method = make()
    fit(method, FEATURES, LABELS, epochs=2)
    evaluate(method, FEATURES, LABELS)
    assert tiny_pengi.digest() == before
    for encoder in (tiny_pengi.audio, tiny_pengi.text):
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is None and not parameter.requires_grad, name
        assert not any(module.training for module in encoder.modules())


def test_train_mode_of_a_method_does_not_reach_the_encoders(make, tiny_pengi):
    method = make()
    method.train()
    assert not tiny_pengi.text.training and not tiny_pengi.audio.training
    logits = method(FEATURES)
    method.eval()
    assert torch.equal(method(FEATURES), logits)


def test_method_does_not_own_the_encoders(make, tiny_pengi):
    method = make()
    frozen = {
        id(tensor)
        for encoder in (tiny_pengi.audio, tiny_pengi.text)
        for tensor in encoder.state_dict().values()
    }
    frozen |= {
        id(p) for encoder in (tiny_pengi.audio, tiny_pengi.text) for p in encoder.parameters()
    }
    assert not frozen & {id(parameter) for parameter in method.parameters()}
    storages = {
        t.data_ptr()
        for e in (tiny_pengi.audio, tiny_pengi.text)
        for t in e.state_dict().values()
        if t.numel()
    }
    assert not storages & {tensor.data_ptr() for tensor in method.state_dict().values()}
    assert not any(key.startswith(("pengi", "audio.", "text.")) for key in method.state_dict())
    assert not {tiny_pengi.audio, tiny_pengi.text} & set(method.modules())


def test_moving_a_method_leaves_the_encoders(tiny_pengi):
    CoCoOp(tiny_pengi, NAMES).double()
    assert {parameter.dtype for parameter in tiny_pengi.text.parameters()} == {torch.float32}


# Methods.


def test_zero_shot_is_the_cosine_with_the_prompt(tiny_pengi):
    assert tiny_pengi.prompt == "The is a recording of  {}."
    text = tiny_pengi.encode_text([f"The is a recording of  {name}." for name in NAMES])
    expected = 100 * F.normalize(FEATURES, dim=-1) @ text.T
    torch.testing.assert_close(ZeroShot(tiny_pengi, NAMES)(FEATURES), expected)


def test_palm_without_context_is_zero_shot_on_bare_names(tiny_pengi):
    palm = PALMDagger(tiny_pengi, NAMES)
    torch.testing.assert_close(palm(FEATURES), ZeroShot(tiny_pengi, NAMES, prompt="{}")(FEATURES))
    assert not torch.allclose(palm(FEATURES), ZeroShot(tiny_pengi, NAMES)(FEATURES))
    assert palm.lambdas.tolist() == [0] * len(NAMES)


def test_palm_is_the_papers_equation(tiny_pengi):
    """f' = (1 - lambda) f + lambda z, class by class, and then a unit vector."""
    palm = PALM(tiny_pengi, NAMES, seed=4)
    for n, name in enumerate(NAMES):
        f = tiny_pengi.encode_text([name])[0]
        weight = torch.sigmoid(palm.prompt_learner_state()["lambdas"][n])
        moved = (1 - weight) * f + weight * palm.prompt_learner_state()["ctx"][n]
        expected = 100 * F.cosine_similarity(FEATURES, moved[None])
        torch.testing.assert_close(palm(FEATURES)[:, n].detach(), expected, rtol=1e-5, atol=1e-4)


def test_coop_from_text_starts_as_zero_shot(tiny_pengi):
    """Its context is the prompt's words, whatever the seed; a step of SGD moves it away."""
    coop = CoOp(tiny_pengi, NAMES, seed=3, init="text")
    expected = ZeroShot(tiny_pengi, NAMES)(FEATURES)
    torch.testing.assert_close(coop(FEATURES), expected, rtol=1e-4, atol=1e-3)
    assert coop.context.shape == (5, tiny_pengi.text_width)  # the, is, a, recording, of
    fit(coop, FEATURES, LABELS, epochs=1)
    assert not torch.allclose(coop(FEATURES), expected)
    cocoop = CoCoOp(tiny_pengi, NAMES, init="text")
    assert torch.equal(cocoop.context, CoOp(tiny_pengi, NAMES, init="text").context)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "audio"}, "init='audio': use published, text"),
        ({"init": "text", "context_length": 4}, "leave context_length out"),
    ],
)
def test_a_start_that_coop_does_not_have(options, message, tiny_pengi):
    with pytest.raises(ValueError, match=message):
        CoOp(tiny_pengi, NAMES, **options)


def test_coop_from_a_prompt_without_words_before_the_name(tiny_pengi, monkeypatch):
    monkeypatch.setattr(tiny_pengi, "prompt", "{}.")
    with pytest.raises(ValueError, match="nothing stands before {}"):
        CoOp(tiny_pengi, NAMES, init="text")


def test_lambdas(tiny_pengi):
    """sigmoid of [0, 1) at first: 0.5 to 0.7311. Whatever is learned, in [0, 1]."""
    names = [f"class {n}" for n in range(60)]
    for seed in range(3):
        lambdas = PALM(tiny_pengi, names, seed=seed).lambdas
        assert lambdas.shape == (60,) and lambdas.min() >= 0.5 and lambdas.max() <= 0.7311
        assert lambdas.max() - lambdas.min() > 0.15
    palm = PALM(tiny_pengi, NAMES)
    fit(palm, FEATURES, LABELS, lr=50.0, epochs=3)
    assert palm.lambdas.min() >= 0 and palm.lambdas.max() <= 1


def test_logits_do_not_depend_on_the_features_length(make):
    method = make()
    torch.testing.assert_close(method(3 * FEATURES), method(FEATURES), rtol=1e-4, atol=1e-3)


def test_logits_do_not_depend_on_the_batch(make):
    """But for transductive methods, which have tests of their own."""
    method = make()
    if method.transductive:
        return
    with torch.no_grad():
        whole = method(FEATURES)
        single = torch.cat([method(row[None]) for row in FEATURES])
    torch.testing.assert_close(single, whole, rtol=1e-4, atol=1e-3)


def test_seed_of_a_method_is_its_initial_values(learned, tiny_pengi):
    cls = type(learned)
    state = learned.prompt_learner_state()
    assert same(cls(tiny_pengi, NAMES, seed=0).prompt_learner_state(), state)
    assert not same(cls(tiny_pengi, NAMES, seed=1).prompt_learner_state(), state)


@pytest.mark.parametrize("max_tokens", [1, 100, 300, 8192])
def test_cocoop_s_chunks_change_nothing(max_tokens, tiny_pengi):
    """Logits and gradients, of 7 clips in chunks of 1 to 7."""
    results = []
    for limit in (10**9, max_tokens):
        method = CoCoOp(tiny_pengi, NAMES, seed=2)
        method.max_tokens = limit
        logits = method(FEATURES[:7])
        F.cross_entropy(logits, LABELS[:7]).backward()
        results.append((logits.detach(), [parameter.grad for parameter in method.parameters()]))
    (whole, gradients), (chunked, others) = results
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-4)
    assert len(gradients) == 5
    for got, expected in zip(others, gradients, strict=True):
        assert (got - expected).norm() <= 1e-4 * expected.norm()


class Sized:
    """An AudioTextModel of PENGI's size whose text features are all ones."""

    name, sample_rate, clip_seconds, logit_scale, note = "sized", 44_100, 7.0, 100.0, ""
    prompt, device, dtype = "{}", torch.device("cpu"), torch.float32
    dim, text_width = 1024, 512
    tokenize = staticmethod(tokenize)

    def encode_text(self, prompts):
        return torch.ones(len(prompts), self.dim)

    def embed_tokens(self, ids):
        return torch.zeros(*ids.shape, self.text_width)

    def encode_embeddings(self, prefix, suffix, lengths):
        return torch.ones(len(prefix), len(suffix), self.dim)


@pytest.mark.parametrize("classes", [2, 10, 50])
def test_numbers_of_parameters_at_pengi_s_size(classes):
    """As the paper's method implies: 16 x 512; that and the meta network; 1024 + 1 for each
    class.
    """
    expected = {
        "zeroshot": 0,
        "coop": 8192,
        "cocoop": 107_072,
        "palm": 1025 * classes,
        "solved-palm": 1025 * classes,
        "palm-dagger": 0,
        # Before a fit: what has a row for each clip has none.
        **dict.fromkeys(("tip-adapter", "tip-adapter-f", "treff", "treff-f"), 0),
        **dict.fromkeys(("prototypes", "text-prototypes", "ss-text", "taskres"), 1024 * classes),
        **dict.fromkeys(("zs-lp", "clap-probe", "cross-modal-probe"), 1024 * classes),
        **dict.fromkeys(("linear-probe", "gda"), 1025 * classes),
        "lp-plus-plus": 1026 * classes,
        "centred-mix": 1024 * (classes + 1),
        "kernel-ridge": 1,
        "malp": 1024 * (classes + 2),
        "transclip": 0,
        "text-mixture": 1025 * classes,
    }
    names = [f"class {n}" for n in range(classes)]
    got = {
        name: sum(p.numel() for p in make(Sized(), names).parameters())
        for name, make in METHODS.items()
        if name in EVERY
    }
    assert got == expected


# Scores.


class Fixed:
    """A method that answers with logits it is given: each clip's features are its own number."""

    def __init__(self, logits):
        self.logits, self.sizes = logits, []
        self.class_names = [f"class {n}" for n in range(logits.shape[1])]
        self.model = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, dim=1)

    def __call__(self, features):
        self.sizes.append(len(features))
        return self.logits[features[:, 0].long()]


def numbered(n, classes=4, seed=0):
    """A method with random logits for n clips, the clips' features, and labels that the logits
    favour.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator) + F.one_hot(labels, classes)
    return Fixed(logits), torch.arange(n).float()[:, None], labels


@pytest.mark.parametrize("n", [1, 20, 128, 300])
def test_scores_are_scikit_learn_s(n):
    method, features, labels = numbered(n, seed=n)
    got, guess = evaluate(method, features, labels), method.logits.argmax(1)
    kwargs = dict(average="macro", zero_division=0)
    assert got["accuracy"] == pytest.approx(accuracy_score(labels, guess), abs=1e-12)
    assert got["f1"] == pytest.approx(f1_score(labels, guess, **kwargs), abs=1e-12)
    assert got["precision"] == pytest.approx(precision_score(labels, guess, **kwargs), abs=1e-12)
    assert got["recall"] == pytest.approx(recall_score(labels, guess, **kwargs), abs=1e-12)
    assert all(type(value) is float for value in got.values())


def test_classes_that_are_never_guessed_count_as_nothing(recwarn):
    """Without a warning; the macro mean is over the classes that occur in labels or guesses."""
    method = Fixed(torch.tensor([[9.0, 0, 0]] * 4))
    got = evaluate(method, torch.arange(4).float()[:, None], [0, 0, 1, 1])
    assert got["accuracy"] == got["recall"] == 0.5 and got["precision"] == 0.25
    assert got["f1"] == pytest.approx(1 / 3) and len(recwarn) == 0


def test_loss_is_the_mean_of_the_means_of_batches():
    """Of 128; the last one, of 44, counts as much as the others: the published way."""
    method, features, labels = numbered(300)
    logits = method.logits
    means = [
        F.cross_entropy(logits[s : s + 128], labels[s : s + 128]).item() for s in (0, 128, 256)
    ]
    loss = evaluate(method, features, labels)["loss"]
    assert loss == pytest.approx(np.mean(means), rel=1e-6)
    assert abs(loss - F.cross_entropy(logits, labels).item()) > 1e-4
    assert method.sizes == [128, 128, 44]


def test_predict_gives_logits_without_gradient(make):
    method = make()
    features, _ = data(130)
    got = predict(method, features)
    assert got.shape == (130, 4) and not got.requires_grad and got.device.type == "cpu"
    with torch.no_grad():
        torch.testing.assert_close(got, method(features), rtol=1e-4, atol=1e-3)


def test_evaluation_changes_nothing(make):
    method = make()
    before = copy.deepcopy(method.state_dict())
    first = evaluate(method, FEATURES, LABELS)
    assert evaluate(method, FEATURES, LABELS) == first and same(method.state_dict(), before)


def test_an_option_is_never_taken_for_a_seed(tiny_pengi):
    """A third positional argument is the seed; a prompt there would be dropped silently."""
    with pytest.raises(TypeError, match="give options by name"):
        ZeroShot(tiny_pengi, ["a", "b"], "the sound of {}")
