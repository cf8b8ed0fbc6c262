"""Methods with a training of their own, each against a loop with a written-out optimizer."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rival_data import DIM, NAMES, SCALE, TextModel, table, unit

from palmkit import METHODS, fit, predict

pytestmark = pytest.mark.usefixtures("one_thread")
TEST, _ = table([6, 6, 6, 6], seed=7)
X = torch.from_numpy(unit(TEST))
T = TextModel().encode_text([f"a sound of {name}" for name in NAMES])
SUPPORT = table([2, 6, 3, 5])
S, LABELS = torch.from_numpy(unit(SUPPORT[0])), SUPPORT[1]
Y = F.one_hot(LABELS, len(NAMES)).double()


def trained(name, **options):
    method = METHODS[name](TextModel(), NAMES, **options)
    losses = fit(method, *SUPPORT)
    return predict(method, TEST), losses


def cosine(step, steps):
    return (1 + math.cos(math.pi * step / steps)) / 2


def sgd(grad, state, step, lr):
    """Momentum 0.9, as PyTorch defines it. state: a dict that is kept between steps."""
    state["v"] = 0.9 * state.get("v", torch.zeros_like(grad)) + grad
    return -lr * state["v"]


def adam(grad, state, step, lr, eps=1e-8):
    state["m"] = 0.9 * state.get("m", torch.zeros_like(grad)) + 0.1 * grad
    state["u"] = 0.999 * state.get("u", torch.zeros_like(grad)) + 0.001 * grad**2
    m, u = state["m"] / (1 - 0.9 ** (step + 1)), state["u"] / (1 - 0.999 ** (step + 1))
    return -lr * m / (u.sqrt() + eps)


def descend(start, loss_of, steps, lr, rule, decay=0.0):
    """The parameter after all steps, and the loss before each. decay: AdamW's."""
    value, state, losses = start.clone(), {}, []
    for step in range(steps):
        value.requires_grad_(True)
        loss = loss_of(value)
        (grad,) = torch.autograd.grad(loss, value)
        losses.append(loss.item())
        rate = lr * cosine(step, steps)
        value = value.detach()
        value = value * (1 - rate * decay) + rule(grad, state, step, rate)
    return value, losses


def check(name, loss_of, logits_of, start, steps, lr, rule, decay=0.0, **options):
    value, losses = descend(start, loss_of, steps, lr, rule, decay)
    got, got_losses = trained(name, **options)
    torch.testing.assert_close(got, logits_of(value), rtol=0, atol=1e-5)
    np.testing.assert_allclose(got_losses, losses, rtol=0, atol=1e-5)
    assert not torch.allclose(got, logits_of(start), atol=1e-2), "nothing was learned"


def of_weights(W, x=S):
    return SCALE * x @ (W / W.norm(dim=1, keepdim=True)).T


@pytest.mark.parametrize(("norm", "steps", "lr"), [(10.0, 300, 0.1), (1.0, 40, 0.05)])
def test_zs_lp(norm, steps, lr):
    options = {} if norm == 10.0 else dict(text_norm=1.0, train_epochs=steps, train_lr=lr)
    check(
        "zs-lp",
        lambda W: F.cross_entropy(of_weights(W), LABELS),
        lambda W: of_weights(W, X),
        *(norm * T, steps, lr, sgd),
        **options,
    )


@pytest.mark.parametrize(("norm", "strength"), [(10.0, 1.0), (1.0, 3.0)])
def test_clap_probe(norm, strength):
    shares = torch.softmax(SCALE * S @ T.T, 1)[torch.arange(len(S)), LABELS]
    alpha = torch.stack([shares[c == LABELS].mean() for c in range(len(NAMES))])

    def loss(W):
        penalty = sum(alpha[c] * (W[c] - norm * T[c]).pow(2).sum() for c in range(len(NAMES)))
        return F.cross_entropy(of_weights(W), LABELS) + strength * penalty / len(NAMES)

    steps, options = 300, {}
    if norm == 1.0:
        options = dict(text_norm=norm, strength=strength, train_epochs=60)
        steps = 60
    check("clap-probe", loss, lambda W: of_weights(W, X), norm * T, steps, 0.1, sgd, **options)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_taskres(alpha):
    """4 clips a class in the mean: 100 epochs."""
    check(
        "taskres",
        lambda r: F.cross_entropy(of_weights(T + alpha * r), LABELS),
        lambda r: of_weights(T + alpha * r, X),
        *(torch.zeros_like(T), 100, 2e-3, adam),
        alpha=alpha,
    )


@pytest.mark.parametrize(("shots", "epochs"), [(1, 100), (4, 100), (5, 200)])
def test_taskres_has_fewer_epochs_for_few_shots(shots, epochs):
    method = METHODS["taskres"](TextModel(), NAMES)
    assert len(fit(method, *table([shots] * 4))) == epochs


def adamw_eps(grad, state, step, lr):
    return adam(grad, state, step, lr, eps=1e-4)


def cached(cosines, x, alpha, beta):
    return SCALE * x @ T.T + alpha * torch.exp(-beta * (1 - cosines)) @ Y


def test_tip_adapter_f():
    def logits(keys, x=S):
        return cached(x @ keys.T, x, 2.0, 3.0)

    check(
        "tip-adapter-f",
        lambda keys: F.cross_entropy(logits(keys), LABELS),
        lambda keys: logits(keys, X),
        *(S, 20, 0.05, adamw_eps),
        decay=0.01,
        **dict(alpha=2.0, beta=3.0, train_lr=0.05),
    )


def test_tip_adapter_f_at_its_defaults():
    _, losses = descend(
        S,
        lambda keys: F.cross_entropy(cached(S @ keys.T, S, 1.17, 1.0), LABELS),
        *(20, 1e-3, adamw_eps, 0.01),
    )
    np.testing.assert_allclose(trained("tip-adapter-f")[1], losses, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", ["keys", "map"])
def test_treff_f(form):
    def logits(value, x=S):
        cosines = x @ value.T if form == "keys" else (x @ value) @ (S @ value).T
        return cached(cosines, x, 1.0, 5.5)

    check(
        "treff-f",
        lambda value: F.cross_entropy(logits(value), LABELS),
        lambda value: logits(value, X),
        *(S if form == "keys" else torch.eye(DIM).double(), 20, 0.05, adamw_eps),
        decay=0.01,
        **dict(form=form, train_lr=0.05),
    )
    losses = trained("treff-f", form=form)[1]
    assert len(losses) == 20 and losses[-1] < losses[0]


def test_lp_plus_plus():
    """Autograd in place of the gradients by hand; steps and start from their definitions."""
    n, similar = len(S), S @ T.T
    own = [c == LABELS for c in range(len(NAMES))]
    of_own = [250 / mine.sum() * similar[mine, c].sum() for c, mine in enumerate(own)]
    W = torch.stack([S[mine].sum(0) for mine in own]).requires_grad_()
    b = torch.zeros(len(NAMES)).double().requires_grad_()
    alpha = torch.stack(of_own).mean().repeat(len(NAMES)).requires_grad_()
    step = 4 * n / torch.linalg.eigvalsh(S.T @ S).max()
    step_alpha = n / (4 * (similar**2).sum(0).max())

    def loss():
        return F.cross_entropy(S @ W.T + b + alpha * similar, LABELS)

    losses = []
    for _ in range(300):
        value = loss()
        losses.append(value.item())
        grads = torch.autograd.grad(value, (W, b))
        with torch.no_grad():
            W -= step * grads[0]
            b -= step * grads[1]
        (grad,) = torch.autograd.grad(loss(), alpha)
        with torch.no_grad():
            alpha -= step_alpha * grad
    got, got_losses = trained("lp-plus-plus")
    expected = (X @ W.T + b + alpha * (X @ T.T)).detach()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got_losses, losses, rtol=0, atol=1e-5)
    assert losses[-1] < losses[0]


def test_cross_modal_probe():
    """The batches are given by the seed; gradients by autograd, AdamW written out."""
    generator, half = torch.Generator().manual_seed(0), 6
    waiting = {"clips": [], "texts": []}

    def take(kind, n):
        while len(waiting[kind]) < half:
            waiting[kind] += torch.randperm(n, generator=generator).tolist()
        taken, waiting[kind] = waiting[kind][:half], waiting[kind][half:]
        return taken

    def loss(W):
        i, j = take("clips", len(S)), take("texts", len(NAMES))
        of_clips = -F.log_softmax(SCALE * S[i] @ W.T, 1)[range(half), LABELS[i]].mean()
        of_texts = -F.log_softmax(SCALE * T[j] @ W.T, 1)[range(half), j].mean()
        return (of_clips + of_texts) / 2

    check(
        "cross-modal-probe",
        *(loss, lambda W: SCALE * X @ W.T, T, 50, 0.01, adam),
        decay=0.02,
        **dict(train_steps=50, train_batch=2 * half, train_lr=0.01, weight_decay=0.02),
    )


@pytest.mark.parametrize("name", ["zs-lp", "taskres", "tip-adapter-f"])
def test_batches_of_a_large_support_set(name):
    """Shuffled by the trial's seed; one batch for a set that fits in it, and nothing is random."""
    options = dict(train_batch=5, train_epochs=3)
    losses = []
    for seed in (0, 0, 1):
        method = METHODS[name](TextModel(), NAMES, **options)
        losses.append(fit(method, *SUPPORT, seed=seed))
    assert losses[0] == losses[1] != losses[2] and len(losses[0]) == 3 * 4
    whole = [METHODS[name](TextModel(), NAMES, train_epochs=3) for _ in range(2)]
    assert fit(whole[0], *SUPPORT, seed=0) == fit(whole[1], *SUPPORT, seed=1)


@pytest.mark.parametrize("join", ["concatenated", "unit", "added"])
def test_malp_clip_by_clip(join):
    method = METHODS["malp"](TextModel(), NAMES, seed=3, join=join, lam=0.4)
    for parameter in method.parameters():
        parameter.data *= 20  # as large as the embeddings
    learned = {name: value.detach() for name, value in method.named_parameters()}
    expected = torch.empty(len(X), len(NAMES)).double()
    for n, x in enumerate(X):
        for c, text in enumerate(T):
            u, v = x + 0.4 * learned["P_audio"], text + 0.4 * learned["P_text"][c]
            P = learned["P"]
            if join == "added":
                u, v = u + 0.4 * P, v + 0.4 * P
                expected[n, c] = u @ v / (u.norm() * v.norm())
            elif join == "unit":
                expected[n, c] = (u @ v / (u.norm() * v.norm()) + P @ P) / (1 + P @ P)
            else:
                lengths = (u @ u + P @ P).sqrt() * (v @ v + P @ P).sqrt()
                expected[n, c] = (u @ v + P @ P) / lengths
    torch.testing.assert_close(method(TEST), SCALE * expected, rtol=0, atol=1e-9)
    assert fit(method, *SUPPORT, epochs=2, batch_size=8) != []


def test_malp_trains_as_the_trial_says():
    runs = [fit(METHODS["malp"](TextModel(), NAMES), *SUPPORT, lr=lr) for lr in (0.05, 0.01)]
    assert len(runs[0]) == 50 and runs[0][0] == runs[1][0] and runs[0][1:] != runs[1][1:]
