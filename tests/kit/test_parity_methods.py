"""Exactness of the methods: initial values, training trajectories, the few-shot draw, and
prompts without padding.
"""

import io
import random

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from reference import absolute, relative, scaled, within
from sklearn.metrics import precision_recall_fscore_support

from palmkit import PALM, CoCoOp, CoOp, draw_shots, evaluate, fit

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = {"coop": CoOp, "cocoop": CoCoOp, "palm": PALM}
TRAJECTORY = 1e-3  # relative
INITIAL = 3e-7  # relative: the published draw itself depends on the processor in the last bit
EXACT = 1e-5  # relative, against the padded computation in float64


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def part(table, prefix):
    """The learned tensors `prefix.*` of a training table, without the prefix."""
    tensors = {
        key.removeprefix(f"{prefix}."): value
        for key, value in table.items()
        if key.startswith(f"{prefix}.")
    }
    return {
        key: value
        for key, value in tensors.items()
        if key not in ("sos", "classes_pad") and key[-4:] != "_f64"
    }


@pytest.fixture
def run(source, pengi, name):
    """A method with a published run's initial parameters, and that run's tensors."""
    table = source.tables[f"train_{name}"]
    method = METHODS[name](pengi, source.facts["class_names"])
    method.load_prompt_learner(part(table, "init"))
    return method, table


def gradients(method, features, labels):
    """Gradients under their published names: what one plain step with a learning rate of 1 takes
    off.
    """
    before = method.prompt_learner_state()
    fit(method, features, labels, lr=1.0, momentum=0.0, batches=[range(len(labels))])
    return {key: before[key] - value for key, value in method.prompt_learner_state().items()}


def assert_same(got, expected, limit, stage, source):
    """The same names and shapes, and values within `limit` of each tensor's largest magnitude."""
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        within(limit, scaled(got[key], value), stage, source, key)


# Training.


def test_trajectory(source, run, name):
    """Twenty steps over the published batches: loss and logits of each, then parameters and
    evaluation logits.
    """
    method, table = run
    logits = []
    hook = method.register_forward_hook(
        lambda module, inputs, output: logits.append(output.detach())
    )
    losses = fit(method, table["features"], table["labels"], batches=table["batch_index"])
    hook.remove()
    losses = torch.tensor(losses, dtype=torch.float64)
    for kind in ("loss", "loss_f64"):
        assert losses.shape == table[kind].shape
        within(
            TRAJECTORY,
            (losses - table[kind]).abs() / table[kind],
            f"{name} {kind} of each step",
            source.name,
        )
    within(
        TRAJECTORY,
        scaled(torch.stack(logits), table["logits_all"]),
        f"{name} logits of each step",
        source.name,
    )
    assert_same(
        method.prompt_learner_state(),
        part(table, "final"),
        TRAJECTORY,
        f"{name} final",
        source.name,
    )
    with torch.no_grad():
        seen, unseen = method(table["features"]), method(table["features_unseen"])
    for kind in ("eval_logits", "eval_logits_f64"):
        within(TRAJECTORY, scaled(seen, table[kind]), f"{name} {kind}", source.name)
    within(
        TRAJECTORY,
        scaled(unseen, table["eval_logits_unseen"]),
        f"{name} eval_logits_unseen",
        source.name,
    )


def test_first_gradient(source, run, name):
    method, table = run
    batch = table["batch_index"][0]
    got = gradients(method, table["features"][batch], table["labels"][batch])
    assert_same(got, part(table, "grad_first"), TRAJECTORY, f"{name} first gradient", source.name)


def test_evaluate(run):
    """Accuracy, the macro averages and the mean of batch means follow from the published run's
    evaluation logits.
    """
    method, table = run
    method.load_prompt_learner(part(table, "final"))
    row = torch.arange(150) % 37  # two batches
    logits, labels = table["eval_logits"][row], table["labels"][row].clone()
    labels[::4] = 1  # classes of unequal size, and more mistakes
    scores, guess = evaluate(method, table["features"][row], labels), logits.argmax(1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, guess, average="macro", zero_division=0
    )
    expected = dict(
        accuracy=float((guess == labels).double().mean()), precision=precision, recall=recall, f1=f1
    )
    assert {key: scores[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    batches = zip(logits.split(128), labels.split(128), strict=True)
    loss = torch.stack([F.cross_entropy(*batch) for batch in batches]).mean()
    assert scores["loss"] == pytest.approx(float(loss), rel=TRAJECTORY)


def test_state_round_trip(source, pengi, run, name):
    """A published state goes in and comes out as it was; a fresh method that takes it answers
    the same.
    """
    method, table = run
    learned = part(table, "final")
    if name != "palm":  # buffers that published states of these two carry
        buffers = {
            key: source.tables["train_coop"][f"init.{key}"] for key in ("sos", "classes_pad")
        }
        method.load_prompt_learner({**learned, **buffers})
    else:
        method.load_prompt_learner(learned)
    assert_same(method.prompt_learner_state(), learned, 0.0, f"{name} state", source.name)
    fresh = METHODS[name](pengi, source.facts["class_names"], seed=9)
    with torch.no_grad():
        logits = method(table["features_unseen"])
        assert scaled(fresh(table["features_unseen"]), logits) > TRAJECTORY
        fresh.load_prompt_learner(method.prompt_learner_state())
        assert scaled(fresh(table["features_unseen"]), logits) < 1e-6


# Initial values: what torch's global generator would give, without touching it.


def drawn_as_published(name, seed, classes, dim, width):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "palm":
            context = torch.nn.init.normal_(torch.empty(classes, dim), std=0.02)
            return {"ctx": context, "lambdas": torch.rand(classes)}
        state = {"ctx": torch.nn.init.normal_(torch.empty(16, width), std=0.02)}
        if name == "cocoop":
            linear1 = torch.nn.Linear(dim, dim // 16)
            linear2 = torch.nn.Linear(dim // 16, width)
            state |= {
                f"meta_net.linear1.{key}": value.detach()
                for key, value in linear1.named_parameters()
            }
            state |= {
                f"meta_net.linear2.{key}": value.detach()
                for key, value in linear2.named_parameters()
            }
        return state


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_initial_values(compact, tiny_pengi, name, seed):
    torch.manual_seed(123)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    method = METHODS[name](tiny_pengi, compact.facts["class_names"], seed=seed)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:], (
        "a global generator was used"
    )
    expected = drawn_as_published(name, seed, classes=5, dim=64, width=32)
    assert_same(method.prompt_learner_state(), expected, INITIAL, f"{name} initial", "compact")


# The few-shot draw.


def train_table(csv):
    frame = pd.read_csv(io.StringIO(csv)).rename(columns={"classname": "class_name"})
    labels = {
        class_name: label for label, class_name in enumerate(sorted(frame["class_name"].unique()))
    }
    return frame.assign(label=frame["class_name"].map(labels))


@pytest.mark.filterwarnings("ignore:.*fewer than:UserWarning")
def test_few_shot_draw(source):
    """The same clips in the same order for each seed and number of shots; NumPy's global
    generator is left alone.
    """
    train, before = train_table(source.facts["fewshot"]["csv"]), np.random.get_state()[1].tolist()
    for case in source.facts["fewshot"]["cases"]:
        drawn = draw_shots(train, shots=case["num_shots"], seed=case["seed"])
        assert list(drawn["path"]) == case["paths"], (case["num_shots"], case["seed"])
        assert list(drawn["label"]) == list(train.set_index("path")["label"][case["paths"]])
    assert np.random.get_state()[1].tolist() == before, "the global generator was used"


def test_all_shots_is_all_clips(compact):
    train = train_table(compact.facts["fewshot"]["csv"])
    assert list(draw_shots(train, shots=-1, seed=0)["path"]) == list(train["path"])


# COOP and COCOOP against the plain computation: every class (and clip) padded to 40 tokens.

CLASS_NAMES = [
    "vacuum cleaner",
    "dog",
    "glockenspiel xylophonist",
    "it's a dog's bark; 100.5 dB",
    "rain",
]


def linear(x, state, key):
    bias = state.get(f"{key}.bias")
    y = x @ state[f"{key}.weight"].T
    return y if bias is None else y + bias


def layer_norm(x, state, key):
    return F.layer_norm(x, x.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"], 1e-5)


def padded_text(state, tokens, mask, heads, layers):
    """Token embeddings [n, 40, width] with context in place, and mask -> unit text embeddings
    [n, dim].
    """
    length, eot = tokens.shape[1], mask.sum(1) - 1
    hidden = (
        torch.ones(length, length, dtype=torch.bool).triu(1) | (mask == 0)[:, None, None]
    )  # [n, 1, 40, 40]
    x = tokens + state["base.embeddings.position_embedding.weight"][:length]
    for layer in range(layers):
        block = f"base.encoder.layers.{layer}"
        y = layer_norm(x, state, f"{block}.layer_norm1")
        q, k, v = (
            linear(y, state, f"{block}.self_attn.{part}_proj").unflatten(-1, (heads, -1))
            for part in "qkv"
        )
        scores = torch.einsum("nihd,njhd->nhij", q, k) / q.shape[-1] ** 0.5
        attended = torch.einsum(
            "nhij,njhd->nihd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v
        )
        x = x + linear(attended.flatten(2), state, f"{block}.self_attn.out_proj")
        y = linear(layer_norm(x, state, f"{block}.layer_norm2"), state, f"{block}.mlp.fc1")
        x = x + linear(y * torch.sigmoid(1.702 * y), state, f"{block}.mlp.fc2")
    pooled = layer_norm(x, state, "base.final_layer_norm")[torch.arange(len(x)), eot]
    e1 = linear(linear(pooled, state, "clip_text_projection"), state, "projection.linear1")
    e2 = linear(F.gelu(e1), state, "projection.linear2")
    return F.normalize(layer_norm(e1 + e2, state, "projection.layer_norm"), dim=-1)


def padded_logits(source, pengi, learned, audio):
    """100 cos(audio, text) with every prompt computed by itself, clip by clip."""
    config = source.facts["config"]["text"]
    state = {
        key.removeprefix("module.caption_encoder."): value.double()
        for key, value in source.state().items()
    }
    ids, mask = pengi.tokenize(["X " * 16 + f"{class_name}." for class_name in CLASS_NAMES])
    tokens = state["base.embeddings.token_embedding.weight"][ids]
    rows = []
    for clip in F.normalize(audio.double(), dim=-1):
        context = learned["ctx"]
        if "meta_net.linear1.weight" in learned:
            context = context + linear(
                linear(clip, learned, "meta_net.linear1").relu(), learned, "meta_net.linear2"
            )
        prompts = torch.cat(
            [tokens[:, :1], context.expand(len(tokens), -1, -1), tokens[:, 17:]], dim=1
        )
        text = padded_text(
            state, prompts, mask, config["num_attention_heads"], config["num_hidden_layers"]
        )
        rows.append(100 * text @ clip)
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("name", "max_tokens"), [("coop", None), ("cocoop", 1), ("cocoop", 150), ("cocoop", 8192)]
)
def test_same_as_padded(compact, tiny_pengi, name, max_tokens):
    """Logits and gradients with random parameters, whatever the number of tokens that go through
    at once.
    """
    generator = torch.Generator().manual_seed(7)
    method = METHODS[name](tiny_pengi, CLASS_NAMES)
    if max_tokens:
        assert method.max_tokens > 0  # it has this setting
        method.max_tokens = max_tokens
    learned = {
        key: 0.3 * torch.randn(value.shape, generator=generator)
        for key, value in method.prompt_learner_state().items()
    }
    method.load_prompt_learner(learned)
    audio, labels = (
        torch.randn(7, 64, generator=generator),
        torch.randint(5, (7,), generator=generator),
    )
    leaves = {key: value.double().requires_grad_() for key, value in learned.items()}
    expected = padded_logits(compact, tiny_pengi, leaves, audio)
    F.cross_entropy(expected, labels).backward()
    within(
        EXACT,
        relative(method(audio).detach(), expected.detach()),
        f"{name}, padded: logits",
        "compact",
    )
    for key, gradient in gradients(method, audio, labels).items():
        error = relative(gradient[None], leaves[key].grad[None])
        within(
            EXACT, error, f"{name}, padded: gradients", "compact", f"{key}, max_tokens={max_tokens}"
        )


def test_text_features_same_as_padded(compact, tiny_pengi):
    """COOP's text embeddings themselves: its logits of the unit vectors, one coordinate each."""
    method = CoOp(tiny_pengi, CLASS_NAMES, seed=3)
    expected = padded_logits(
        compact, tiny_pengi, {"ctx": method.prompt_learner_state()["ctx"].double()}, torch.eye(64)
    )
    with torch.no_grad():
        got = method(torch.eye(64))
    within(EXACT, relative(got.T, expected.T), "coop, padded: text features", "compact")
    assert absolute(got.T.norm(dim=1), torch.full((5,), 100.0)) < 1e-3
