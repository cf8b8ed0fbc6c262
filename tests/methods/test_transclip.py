"""Transductive methods against loops over clips, and what they may and may not depend on."""

import math

import numpy as np
import pytest
import torch
from rival_data import DIM, NAMES, SCALE, TextModel, table, unit
from scipy import special, stats

from palmkit import METHODS, fit, predict
from palmkit.experiments.trials import TRANSDUCTIVE_NAMES, Trial
from palmkit.methods import Method
from palmkit.training import TEST_BATCH

pytestmark = pytest.mark.usefixtures("one_thread")
TEST, LABELS = table([5, 9, 3, 7], seed=7)
X = unit(TEST)
T = TextModel().encode_text([f"a sound of {name}" for name in NAMES]).numpy()
SUPPORTS = {"even": [3, 3, 3, 3], "uneven": [1, 5, 2, 3], "an absent class": [3, 0, 1, 2]}


@pytest.fixture(params=SUPPORTS.values(), ids=SUPPORTS)
def support(request):
    return table(request.param)


@pytest.fixture(params=TRANSDUCTIVE_NAMES)
def name(request):
    return request.param


def fitted(name, support, **options):
    method = METHODS[name](TextModel(), NAMES, **options)
    fit(method, *support)
    return method


def same(got, expected, limit=1e-5):
    np.testing.assert_allclose(got, expected, rtol=0, atol=limit)


def affinities(clips, k) -> np.ndarray:
    """w [n, n], pair by pair."""
    n = len(clips)
    w = np.zeros((n, n))
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: -(clips[i] @ clips[j]))
        for j in others[:k]:
            w[i, j] += max(0.0, clips[i] @ clips[j]) / (2 * k)
            w[j, i] += max(0.0, clips[i] @ clips[j]) / (2 * k)
    return w


def density(x, mu, variance) -> float:
    """Log density by scipy, one dimension after the other."""
    return stats.norm.logpdf(x, mu, np.sqrt(variance)).sum()


def transclip_by_loops(support, lam, gamma, k, temper, steps, inner, scale=SCALE):
    """log z [n, c], and the objective after each update of a block."""
    keys, labels = unit(support[0]), support[1].tolist()
    n, m, c = len(X), len(keys), len(NAMES)
    gamma = m / n if gamma is None else gamma
    clips = np.concatenate([X, keys])
    weight = [1 / n] * n + [gamma / m] * m
    w = affinities(clips, k) if k else np.zeros((n + m, n + m))
    prior = np.array([special.log_softmax([scale * x @ t for t in T]) for x in X])
    z = np.zeros((n + m, c))
    z[:n] = np.exp(prior)
    for i, label in enumerate(labels):
        z[n + i, label] = 1
    mu = np.zeros((c, DIM))
    for cls in range(c):
        mine = [x for x, label in zip(keys, labels, strict=True) if label == cls]
        mu[cls] = np.mean(mine, axis=0) if mine else z[:n, cls] @ X / z[:n, cls].sum()
    variance = np.full(DIM, 1 / DIM)
    history = []

    def objective():
        total = 0.0
        for i, x in enumerate(clips):
            for cls in range(c):
                total -= n * weight[i] * z[i, cls] * density(x, mu[cls], variance) / temper
            if i < n:
                total += special.xlogy(z[i], z[i]).sum() - lam * z[i] @ prior[i]
        return total - (w * (z @ z.T)).sum() / 2

    for step in range(steps):
        if step:
            for cls in range(c):
                share = [weight[i] * z[i, cls] for i in range(n + m)]
                mu[cls] = sum(s * x for s, x in zip(share, clips, strict=True)) / sum(share)
            history.append(objective())
            variance = np.zeros(DIM)
            for i, x in enumerate(clips):
                for cls in range(c):
                    variance += weight[i] * z[i, cls] * (x - mu[cls]) ** 2
            variance /= sum(weight)
            history.append(objective())
        for _ in range(inner):
            before = z.copy()
            for i in range(n):
                value = [
                    lam * prior[i, cls]
                    + density(X[i], mu[cls], variance) / temper
                    + sum(w[i, j] * before[j, cls] for j in range(n + m))
                    for cls in range(c)
                ]
                z[i] = special.softmax(value)
            history.append(objective())
    return np.log(z[:n]), history


OPTIONS = [
    dict(lam=0.5, gamma=None, k=3, temper=50.0, steps=10, inner=5),  # the defaults
    dict(lam=1.0, gamma=0.2, k=3, temper=1.0, steps=3, inner=2),
    dict(lam=0.0, gamma=2.0, k=1, temper=10.0, steps=2, inner=1),
    dict(lam=0.3, gamma=1.0, k=0, temper=2.0, steps=6, inner=1),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_transclip_is_a_loop_over_clips(support, options):
    expected, _ = transclip_by_loops(support, **options)
    given = {"neighbours": options["k"], **options}
    del given["k"]
    same(predict(fitted("transclip", support, **given), TEST).numpy(), expected)
    if options is OPTIONS[0]:
        same(predict(fitted("transclip", support), TEST).numpy(), expected)


def test_transclip_lowers_its_objective_without_neighbours(support):
    _, history = transclip_by_loops(support, **OPTIONS[3])
    assert len(history) == 6 + 2 * 5
    assert (np.diff(history) < 1e-9).all() and history[-1] < history[0] - 0.01


def test_more_neighbours_than_clips():
    """All are neighbours then; a batch of two has one each."""
    support = table([1] * 4)
    method = fitted("transclip", support, neighbours=99)
    assert predict(method, TEST).isfinite().all() and predict(method, TEST[:2]).isfinite().all()


def test_blocks_of_similarities_change_nothing(monkeypatch):
    method = fitted("transclip", table([3] * 4))
    expected = predict(method, TEST)
    monkeypatch.setattr("palmkit.methods.transclip.ROWS", 5)
    torch.testing.assert_close(predict(method, TEST), expected, rtol=0, atol=1e-9)


def mixture_by_loops(support, kappa=4.0, steps=20, scale=SCALE):
    """Logits [n, c], and the log posterior of mu after each round."""
    keys, labels = unit(support[0]), support[1].tolist()
    m = sum([*X, *keys]) / (len(X) + len(keys))
    anchors = [m + t - sum(T) / len(T) for t in T]
    z = np.zeros((len(X), len(NAMES)))
    history = []
    for step in range(steps + 1):
        mu = []
        for cls, anchor in enumerate(anchors):
            total, count = kappa * anchor, kappa
            for x, label in zip(keys, labels, strict=True):
                if label == cls:
                    total, count = total + x, count + 1
            for x, share in zip(X, z[:, cls], strict=True):
                total, count = total + share * x, count + share
            mu.append(total / count)
        logs = np.array([[density(x, one, np.full(DIM, 1 / scale)) for one in mu] for x in X])
        z = special.softmax(logs, axis=1)
        posterior = (special.logsumexp(logs, axis=1) - math.log(len(NAMES))).sum()
        for x, label in zip(keys, labels, strict=True):
            posterior += density(x, mu[label], np.full(DIM, 1 / scale))
        for one, anchor in zip(mu, anchors, strict=True):
            posterior += density(one, anchor, np.full(DIM, 1 / (kappa * scale)))
        history.append(posterior)
        if step == steps:
            return logs, history


@pytest.mark.parametrize("options", [{}, {"kappa": 0.5, "steps": 3}, {"scale": 30.0}])
def test_text_mixture_is_em(support, options):
    expected, history = mixture_by_loops(support, **options)
    names = {"kappa": "prior_shots"}
    given = {names.get(key, key): value for key, value in options.items()}
    got = predict(fitted("text-mixture", support, **given), TEST).numpy()
    same(special.log_softmax(got, axis=1), special.log_softmax(expected, axis=1))
    assert (np.diff(history) > -1e-9).all() and history[-1] > history[0]


# What they see.


def test_who_is_transductive():
    assert not Method.transductive
    assert {name for name, cls in METHODS.items() if cls.transductive} == {*TRANSDUCTIVE_NAMES}


@pytest.mark.parametrize("inductive", ["zeroshot", "centred-mix", "transclip", "text-mixture"])
def test_a_clip_alone_and_among_others(inductive):
    """What the word means: the other clips matter, for these methods and for no other."""
    method = METHODS[inductive](TextModel(), NAMES)
    if method.learns:
        fit(method, *table([3] * 4))
    whole, part = predict(method, TEST), predict(method, TEST[:6])
    matters = (whole[:6] - part).abs().max() > 1e-3
    assert matters == method.transductive


def test_all_clips_come_at_once(name):
    """More clips than a batch of inductive methods has."""
    features, _ = table([40] * 4, seed=5)
    assert len(features) > TEST_BATCH
    method = fitted(name, table([3] * 4))
    sizes = []
    method.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    logits = predict(method, features)
    assert sizes == [160] and logits.shape == (160, 4)
    torch.testing.assert_close(logits, method(features.double()), rtol=0, atol=1e-12)


def test_the_order_of_test_clips_orders_the_logits(name):
    method = fitted(name, table([3] * 4))
    order = torch.randperm(len(TEST), generator=torch.Generator().manual_seed(0))
    got = predict(method, TEST[order])
    torch.testing.assert_close(got, predict(method, TEST)[order], rtol=0, atol=1e-9)
    assert not torch.allclose(got, predict(method, TEST), atol=1e-3)


def test_predicting_leaves_no_trace(name):
    """Clips of one call are forgotten in the next one."""
    method = fitted(name, table([3] * 4))
    first = predict(method, TEST)
    predict(method, table([4] * 4, seed=11)[0])
    assert torch.equal(predict(method, TEST), first)


def test_one_clip_is_no_test_set(name):
    method = fitted(name, table([3] * 4))
    message = f"{name} is transductive: .* one clip alone is no test set; give two or more"
    with pytest.raises(ValueError, match=message):
        predict(method, TEST[:1])


def test_nothing_is_chosen_or_left_out_inside_the_support_set(name):
    assert not METHODS[name].choices
    with pytest.raises(ValueError, match="has no options to choose from"):
        Trial(name, "x", regime="support")
    with pytest.raises(ValueError, match=f"{name} is transductive"):
        METHODS[name](TextModel(), NAMES).leave_out_logits(*table([3] * 4))


def test_they_are_better_with_test_clips_than_the_texts_alone(name):
    """Clear clusters whose texts say little: accuracy with one shot a class."""
    features, labels = table([40] * 4, seed=5)
    # The texts are noise here, and 12 dimensions are few: both get other options than the defaults.
    options = {"transclip": {"temper": 1.0}, "text-mixture": {"prior_shots": 1.0}}
    method = fitted(name, table([1] * 4), **options[name])
    zero = METHODS["zeroshot"](TextModel(), NAMES)
    right = [(predict(one, features).argmax(1) == labels).double().mean() for one in (method, zero)]
    assert right[0] > right[1] + 0.2
