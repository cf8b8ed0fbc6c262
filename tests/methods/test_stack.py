"""PALMs that learn in one computation: each as it does alone."""

import pytest
import torch
import torch.nn.functional as F

from palmkit import PALM, TrainingDiverged, fit, load_pengi
from palmkit.methods import METHODS
from palmkit.methods.stack import can_stack, fit_stack
from palmkit.protocols.train_mode import text_dropout

NAMES = ["dog", "rain", "bell", "wind"]
SETTINGS = {"epochs": 5, "batch_size": 8, "momentum": 0.9}
N = 22  # the last batch of an epoch has 6 clips
VARIANTS = [
    {},
    {"init": "text"},
    {"init": "audio"},
    {"shared_lambda": True},
    {"fixed_lambda": 0.3},
    {"scale": 7.0},
]


@pytest.fixture(scope="module")
def mini():
    return load_pengi("mini", device="cpu")


def draw(model, seed: int):
    """The support set of a seed."""
    generator = torch.Generator().manual_seed(100 + seed)
    features = F.normalize(torch.randn(N, model.dim, generator=generator), dim=-1)
    return features, torch.randint(len(NAMES), (N,), generator=generator)


def alone(model, seed: int, lr: float, **options):
    method = PALM(model, NAMES, seed=seed, **options)
    losses = fit(method, *draw(model, seed), seed=seed, lr=lr, **SETTINGS)
    return method, losses


def assert_same(method, other, losses, other_losses, limit=1e-6):
    """Each tensor, and the losses, to `limit` of their largest number."""
    state, expected = method.prompt_learner_state(), other.prompt_learner_state()
    assert state.keys() == expected.keys()
    for key, value in state.items():
        assert (value - expected[key]).abs().max() <= limit * expected[key].abs().max(), key
    assert losses == pytest.approx(other_losses, rel=0, abs=limit * max(other_losses))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_as_each_alone(options, mini):
    """Other seeds and other learning rates in one stack, in every variant of PALM."""
    seeds, lrs = [0, 1, 2, 0], [0.05, 0.05, 0.05, 0.2]
    methods = [PALM(mini, NAMES, seed=seed, **options) for seed in seeds]
    features, labels = zip(*(draw(mini, seed) for seed in seeds), strict=True)
    found = fit_stack(methods, features, labels, seeds=seeds, lrs=lrs, **SETTINGS)
    for method, losses, seed, lr in zip(methods, found, seeds, lrs, strict=True):
        assert_same(method, *_swap(alone(mini, seed, lr, **options), losses), limit=1e-9)
    assert found[0] != found[1] and found[0] != found[3]


def _swap(other, losses):
    return other[0], losses, other[1]


def test_the_reference_s_training(compact, tiny_pengi):
    """The published code's twenty steps of PALM, in a stack with another seed."""
    table = compact.tables["train_palm"]
    start = {key.removeprefix("init."): one for key, one in table.items() if key[:5] == "init."}
    methods = [PALM(tiny_pengi, compact.facts["class_names"], seed=seed) for seed in (0, 1)]
    methods[0].load_prompt_learner(start)
    single = PALM(tiny_pengi, compact.facts["class_names"])
    single.load_prompt_learner(start)
    batches = table["batch_index"]
    expected = fit(single, table["features"], table["labels"], batches=batches)
    both = ([table["features"]] * 2, [table["labels"]] * 2)
    losses, _ = fit_stack(methods, *both, seeds=[0, 1], lrs=[0.05] * 2, batches=batches)
    assert len(losses) == 20
    assert_same(methods[0], single, losses, expected)
    for key, value in methods[0].prompt_learner_state().items():
        published = table[f"final.{key}"]
        assert (value - published).norm() <= 1e-4 * published.norm(), key


def test_one_that_diverges_leaves_the_others_alone(mini):
    methods = [PALM(mini, NAMES, seed=seed) for seed in (0, 1)]
    features, labels = zip(*(draw(mini, seed) for seed in (0, 1)), strict=True)
    with torch.no_grad():
        methods[0].z[0, 0] = float("inf")
    bad, good = fit_stack(methods, features, labels, seeds=[0, 1], lrs=[0.05] * 2, **SETTINGS)
    assert isinstance(bad, TrainingDiverged) and "not finite from step 0" in str(bad)
    method, losses = alone(mini, 1, 0.05)
    assert_same(methods[1], method, good, losses, limit=1e-9)


def test_what_is_not_stacked(mini):
    palm = PALM(mini, NAMES)
    assert can_stack([palm, PALM(mini, NAMES, seed=1)])
    for other in (
        METHODS["coop"](mini, NAMES),
        METHODS["solved-palm"](mini, NAMES),
        PALM(mini, NAMES[:3]),
        PALM(mini, NAMES, scale=3.0),
        PALM(mini, NAMES, fixed_lambda=0.5),
    ):
        assert not can_stack([palm, other])
    features, labels = draw(mini, 0)
    with pytest.raises(ValueError, match="the same n"):
        pair = [palm, PALM(mini, NAMES, seed=1)]
        fit_stack(pair, [features, features[:9]], [labels, labels[:9]], seeds=[0, 1], lrs=[0.1] * 2)
    with text_dropout(mini, 0):
        assert not can_stack([palm, palm])
