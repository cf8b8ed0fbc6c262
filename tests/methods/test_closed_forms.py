"""Methods that are solved, each against another computation: loops, scipy, scikit-learn."""

import numpy as np
import pytest
import torch
from rival_data import DIM, NAMES, SCALE, TextModel, table, unit
from scipy import optimize, special
from sklearn.kernel_ridge import KernelRidge as SklearnRidge
from sklearn.linear_model import LogisticRegression

from palmkit import METHODS, fit, predict
from palmkit.methods.kernel_ridge import KernelRidge, published_settings

pytestmark = pytest.mark.usefixtures("one_thread")
EVEN, UNEVEN = [5, 5, 5, 5], [1, 7, 3, 4]
TEST, _ = table([6, 6, 6, 6], seed=7)
X = unit(TEST)
T = TextModel().encode_text([f"a sound of {name}" for name in NAMES]).numpy()


def fitted(name, support, **options):
    method = METHODS[name](TextModel(), NAMES, **options)
    losses = fit(method, *support)
    return method, losses


def logits_of(name, support, **options) -> np.ndarray:
    return predict(fitted(name, support, **options)[0], TEST).numpy()


def log_softmax(logits) -> np.ndarray:
    return special.log_softmax(logits, axis=1)


def same(got, expected, limit=1e-5):
    np.testing.assert_allclose(got, expected, rtol=0, atol=limit)


@pytest.fixture(params=[EVEN, UNEVEN], ids=["even", "uneven"])
def support(request):
    return table(request.param)


def class_means(support) -> np.ndarray:
    features, labels = unit(support[0]), support[1].numpy()
    return np.stack([features[labels == c].mean(0) for c in range(len(NAMES))])


@pytest.mark.parametrize("C", [0.5, 31.6])
@pytest.mark.parametrize("scale", [None, 4.0])
def test_linear_probe_is_scikit_learn_s(support, C, scale):
    """Logits up to a constant for each clip: of b only differences are determined."""
    length = scale or 1.0
    reference = LogisticRegression(C=C, solver="newton-cg", tol=1e-9, max_iter=1000)
    reference.fit(length * unit(support[0]), support[1].numpy())
    got = logits_of("linear-probe", support, C=C, scale=scale)
    same(log_softmax(got), reference.predict_log_proba(length * X))


def test_linear_probe_s_loss_is_that_of_the_objective(support):
    method, (loss,) = fitted("linear-probe", support, C=2.0)
    W, b = method.W.detach().numpy(), method.b.detach().numpy()
    features, labels = unit(support[0]), support[1].numpy()
    logs = log_softmax(features @ W.T + b)[np.arange(len(labels)), labels]
    assert loss == pytest.approx((-logs.sum() + (W**2).sum() / 4) / len(labels), abs=1e-9)
    wrong = special.softmax(features @ W.T + b, axis=1) - np.eye(len(NAMES))[labels]
    same(wrong.T @ features + W / 2, 0, 1e-6)  # the gradient at the minimum
    same(wrong.sum(0), 0, 1e-6)


def test_prototypes(support):
    mu = class_means(support)
    cosines = [[x @ m / np.linalg.norm(m) for m in mu] for x in X]
    same(logits_of("prototypes", support), SCALE * np.array(cosines))


@pytest.mark.parametrize("options", [{}, {"lam": 0.3}, {"prior_shots": 1.5}])
def test_text_prototypes(support, options):
    rows = []
    for c, mean in enumerate(class_means(support)):
        count = int((support[1] == c).sum())
        lam = options.get("lam", count / (count + options.get("prior_shots", 4)))
        w = (1 - lam) * T[c] + lam * mean / np.linalg.norm(mean)
        rows.append(w / np.linalg.norm(w))
    same(logits_of("text-prototypes", support, **options), SCALE * X @ np.array(rows).T)


@pytest.mark.parametrize("options", [{}, {"lam": 0.3}, {"prior_shots": 1.5}])
def test_centred_mix_has_the_nearest_centre(support, options):
    """Differences of logits are those of squared distances to m + M_c, over two."""
    mu = class_means(support)
    m, mean_text = sum(mu) / len(mu), sum(T) / len(T)
    distances = np.empty((len(X), len(NAMES)))
    for c in range(len(NAMES)):
        count = int((support[1] == c).sum())
        lam = options.get("lam", count / (count + options.get("prior_shots", 4)))
        centre = m + (1 - lam) * (T[c] - mean_text) + lam * (mu[c] - m)
        distances[:, c] = ((X - centre) ** 2).sum(1)
    got = logits_of("centred-mix", support, **options)
    expected = -SCALE * distances / 2
    same(got - got[:, :1], expected - expected[:, :1])


@pytest.mark.parametrize(("name", "alpha", "beta"), [("tip-adapter", 1.17, 1), ("treff", 1, 5.5)])
def test_caches(support, name, alpha, beta):
    """Clip by clip: each support clip adds its weight to its class."""
    expected = SCALE * X @ T.T
    for key, label in zip(unit(support[0]), support[1].tolist(), strict=True):
        for n, x in enumerate(X):
            expected[n, label] += alpha * np.exp(-beta * (1 - key @ x))
    same(logits_of(name, support), expected)
    assert np.abs(logits_of(name, support, beta=0.5) - expected).max() > 1e-3
    assert np.abs(logits_of(name, support, alpha=0.5) - expected).max() > 1e-3


@pytest.mark.parametrize("alpha", [1.0, 0.01])
def test_gda(support, alpha):
    """numpy's covariance and pseudo-inverse, and a sum over classes one by one."""
    features, labels, mu = unit(support[0]), support[1].numpy(), class_means(support)
    n = len(labels)
    sigma = np.cov((features - mu[labels]).T, bias=False)
    P = DIM * np.linalg.pinv((n - 1) * sigma + np.trace(sigma) * np.eye(DIM))
    expected = SCALE * X @ T.T
    for c in range(len(NAMES)):
        bias = -np.log(len(NAMES)) - mu[c] @ P @ mu[c] / 2
        expected[:, c] += alpha * (X @ (P @ mu[c]) + bias)
    same(logits_of("gda", support, alpha=alpha), expected)


def test_gda_of_one_shot_is_zero_shot():
    got = logits_of("gda", table([1] * 4))
    same(got - got[:, :1], SCALE * (X @ T.T - X @ T[:1].T))


@pytest.mark.parametrize("times", [2, 3, 5, 7])
def test_gda_of_one_clip_several_times_is_zero_shot(times):
    """Copies of a file: the rounding of class means is no covariance."""
    features, labels = table([1, 1, 1, 1])
    method = METHODS["gda"](TextModel(), NAMES)
    fit(method, features.repeat(times, 1), labels.repeat(times))
    assert not method.W.any()


@pytest.mark.parametrize("lam", [None, 0.05])
def test_ss_text_minimises_its_objective(support, lam):
    """scipy's minimum of: pull of the clips, and half the squared distance to the texts."""
    features, labels = unit(support[0]), support[1].numpy()
    weight = SCALE * (1 / len(labels) if lam is None else lam)

    def objective(flat):
        w = flat.reshape(T.shape)
        pull = sum(x @ w[label] for x, label in zip(features, labels, strict=True))
        return ((w - T) ** 2).sum() / 2 - weight * pull

    found = optimize.minimize(objective, np.zeros(T.size), tol=1e-12).x.reshape(T.shape)
    expected = SCALE * X @ (found / np.linalg.norm(found, axis=1, keepdims=True)).T
    same(logits_of("ss-text", support, lam=lam), expected, 1e-4)  # scipy's own precision
    method, _ = fitted("ss-text", support, lam=lam)
    exact = np.stack([T[c] + weight * features[labels == c].sum(0) for c in range(len(T))])
    same(method.w.detach().numpy(), exact, 1e-9)


# Kernel ridge.


def kernel(a, b, beta):
    return np.array([[np.exp(-beta * (1 - x @ y)) for y in b] for x in a])


@pytest.mark.parametrize("form", ["proker", "ridge"])
@pytest.mark.parametrize(("beta", "lam"), [(1.7, 0.1), (3.0, 0.05), (0.2, 2.0)])
def test_kernel_ridge_is_scikit_learn_s(support, form, beta, lam):
    features, labels = unit(support[0]), support[1].numpy()
    R = np.eye(len(NAMES))[labels] - features @ T.T
    ridge = SklearnRidge(alpha=lam, kernel="precomputed")
    ridge.fit(kernel(features, features, beta), R)
    correction = ridge.predict(kernel(X, features, beta))
    expected = SCALE * (X @ T.T + (lam if form == "proker" else 1) * correction)
    same(logits_of("kernel-ridge", support, beta=beta, lam=lam, form=form), expected)


def test_both_ways_to_write_proker(support):
    """(K / lam + I)^-1 R, the published line, by numpy."""
    features, labels = unit(support[0]), support[1].numpy()
    R = np.eye(len(NAMES))[labels] - features @ T.T
    K = kernel(features, features, 1.5)
    A = np.linalg.inv(K / 0.05 + np.eye(len(K))) @ R
    expected = SCALE * (X @ T.T + kernel(X, features, 1.5) @ A)
    same(logits_of("kernel-ridge", support, beta=1.5, lam=0.05), expected)


def test_published_settings_of_the_shots():
    assert [published_settings(shots) for shots in (1, 2, 4, 8, 16)] == [
        (3.0, 0.05),
        (2.6, 0.05),
        (1.5, 0.05),
        (1.66, 0.07),
        (1.7, 0.1),
    ]
    assert published_settings(0.5) == (3.0, 0.05) and published_settings(64) == (1.7, 0.1)
    beta, lam = published_settings(np.sqrt(8 * 16))
    assert (beta, lam) == (pytest.approx(1.68), pytest.approx(0.085))


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_kernel_ridge_has_the_published_settings(shots):
    beta, lam = published_settings(shots)
    support = table([shots] * 4)
    method, _ = fitted("kernel-ridge", support)
    assert method.beta_used.item() == beta
    same(predict(method, TEST).numpy(), logits_of("kernel-ridge", support, beta=beta, lam=lam), 0)


# Leaving shots out.


def refitted(method, support, **options) -> np.ndarray:
    """Logits of each clip by a method fitted without its fold; folds are found clip by clip."""
    features, labels = support
    seen, folds = dict.fromkeys(range(len(NAMES)), 0), []
    for label in labels.tolist():
        folds.append(seen[label])
        seen[label] += 1
    folds, logits = torch.tensor(folds), np.empty((len(labels), len(NAMES)))
    for fold in folds.unique():
        other = type(method)(method.model, NAMES, **options)
        fit(other, features[folds != fold], labels[folds != fold])
        logits[folds == fold] = predict(other, features[folds == fold]).numpy()
    return logits


@pytest.mark.parametrize("form", ["proker", "ridge"])
@pytest.mark.parametrize(("beta", "lam"), [(1.7, 0.1), (3.0, 0.05), (8.0, 1.0)])
def test_leave_one_shot_out_of_kernel_ridge_is_exact(support, form, beta, lam):
    options = dict(beta=beta, lam=lam, form=form)
    method = METHODS["kernel-ridge"](TextModel(), NAMES, **options)
    got = method.leave_out_logits(*support).numpy()
    same(got, refitted(method, support, **options), 1e-8)
    fit(method, *support)
    assert np.abs(got - predict(method, support[0]).numpy()).max() > 0.01


def test_leave_one_shot_out_of_kernel_ridge_with_one_shot_is_the_prior():
    support = table([1] * 4)
    got = METHODS["kernel-ridge"](TextModel(), NAMES).leave_out_logits(*support).numpy()
    same(got, SCALE * unit(support[0]) @ T.T)


@pytest.mark.parametrize("name", ["prototypes", "gda", "tip-adapter", "linear-probe", "ss-text"])
def test_leave_one_shot_out_is_refitting(support, name):
    method, _ = fitted(name, support)
    before = method.prompt_learner_state()
    same(method.leave_out_logits(*support).numpy(), refitted(method, support), 1e-7)
    assert all(torch.equal(before[key], value) for key, value in method.named_parameters())


def test_leave_one_shot_out_keeps_the_options(support):
    method, _ = fitted("tip-adapter", support, alpha=3.0, scale=2.0, prompt="{}")
    expected = refitted(method, support, alpha=3.0, scale=2.0, prompt="{}")
    same(method.leave_out_logits(*support).numpy(), expected, 1e-9)


def test_nothing_is_left_of_one_shot():
    method = METHODS["prototypes"](TextModel(), NAMES)
    with pytest.raises(ValueError, match="leaving a shot out needs two of a class"):
        method.leave_out_logits(*table([1] * 4))


def test_kernel_ridge_keeps_float32_features_exact():
    """The solution is computed in double precision, whatever the type of the features."""
    features, labels = table(EVEN)
    single = KernelRidge(TextModel(), NAMES)
    double = KernelRidge(TextModel(), NAMES)
    fit(single, features, labels)
    fit(double, features.double(), labels)
    assert torch.equal(single.dual, double.dual)
