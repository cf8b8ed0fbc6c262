"""PALM in closed form: against a direct solution in NumPy and SciPy, and as PALM's parameters."""

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from scipy.special import log_softmax

from palmkit import PALM, fit, predict
from palmkit.methods import solved
from palmkit.methods.solved import SolvedPALM
from palmkit.protocols.prompt_files import load_prompt, save_prompt

RIDGES = (0.03, 3.0)


class Space:
    """An audio-text model of text only, with a part that all texts share."""

    name, sample_rate, clip_seconds, prompt, note = "space", 8000, 1.0, "{}", ""
    device = torch.device("cpu")

    def __init__(self, dim=40, dtype=torch.float64, logit_scale=100.0):
        self.dim, self.dtype, self.logit_scale = dim, dtype, logit_scale

    def encode_text(self, prompts):
        seeds = [zlib.crc32(prompt.encode()) for prompt in prompts]
        rows = [np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds]
        text = torch.tensor(np.stack(rows)) + 1
        return F.normalize(text, dim=-1).to(self.dtype)

    def digest(self):
        return f"{self.dim} {self.dtype}"


def class_names(classes):
    return [f"class {n}" for n in range(classes)]


def draw_clips(model, labels, seed=0, noise=3.0):
    """Unit clips [n, dim] around their class's text, shifted in a direction of their own."""
    rng = np.random.default_rng([seed, model.dim])
    text = model.encode_text(class_names(int(labels.max()) + 1)).double().numpy()
    clips = 3 * text[labels.numpy()] + noise * rng.standard_normal((len(labels), model.dim)) / 4
    clips += np.where(np.arange(model.dim) % 2, 1, -0.5)
    return F.normalize(torch.tensor(clips), dim=-1).to(model.dtype)


def make_labels(classes, shots):
    return torch.arange(classes).repeat(shots)


UNEVEN = torch.tensor([0, 1, 2, 0, 0, 2, 3, 0, 2, 1, 2, 2])
SUPPORTS = {
    "one shot": make_labels(5, 1),
    "two shots": make_labels(5, 2),
    "four shots": make_labels(5, 4),
    "more clips than dimensions": make_labels(6, 16),
    "uneven": UNEVEN,
}


@pytest.fixture(params=SUPPORTS)
def labels(request):
    return SUPPORTS[request.param]


def direct(
    x,
    labels,
    text,
    centre=True,
    shrink=True,
    norm_term=True,
    discount=True,
    use_text=True,
    learned=True,
):
    """Weights [c, d], temperature included, and theta: the equations as they are written."""
    x, labels, text = (one.numpy().astype(one.numpy().dtype) for one in (x, labels, text))
    x, text = x.astype(float), text.astype(float)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    text = text / np.linalg.norm(text, axis=1, keepdims=True)
    n, classes = len(x), len(text)
    y0 = np.eye(classes)[labels] - 1 / classes
    means = np.stack([x[labels == c].mean(0) for c in range(classes)])
    u = means.mean(0) / np.linalg.norm(means.mean(0))
    projector = np.eye(len(u)) - np.outer(u, u) if centre else np.eye(len(u))
    clips, spread = x @ projector, (text - text.mean(0)) @ projector
    class_means = means @ projector
    g = max(0, (class_means * spread).sum() / (spread**2).sum())
    h = g * (spread**2).sum(1) / 2
    h = (h - h.mean()) * norm_term
    kappa = (x @ u).mean()
    apart, counts = text - text.mean(0), np.bincount(labels)
    noise = ((x - x.mean(0)) @ apart.T) ** 2  # of a clip's cosine with a text
    noise = noise.mean(0).sum() * (1 / counts).sum() / classes**2
    alpha = max(0, 1 - noise / ((apart @ means.mean(0)) ** 2).sum()) if shrink else 1
    shrunk = apart - alpha * centre * np.outer(apart @ u, u)
    text_weights = (shrunk - np.outer(h, u) / kappa) * use_text
    e0 = x @ text_weights.T
    kernel = clips @ clips.T
    sigma = np.trace(kernel) / n
    experts, left_out = [text_weights], [e0]
    shot = np.array([(labels[:i] == labels[i]).sum() for i in range(n)])
    for r in RIDGES:
        dual = np.linalg.solve(kernel + r * sigma * np.eye(n), y0)
        experts.append((clips.T @ dual).T)
        predicted = np.zeros_like(y0)
        for b in range(shot.max() + 1):  # refit without the fold, m and sigma as they are
            rest = shot != b
            inner = kernel[rest][:, rest] + r * sigma * np.eye(rest.sum())
            predicted[~rest] = kernel[~rest][:, rest] @ np.linalg.solve(inner, y0[rest])
        left_out.append(predicted)
    s = max(0, (y0 * e0).sum() / (e0**2).sum()) if use_text else 0
    unexplained = ((y0 - s * e0) ** 2).sum() / (y0**2).sum()
    prior = np.array([s, 0, unexplained if discount else 1])
    e = np.stack([one.ravel() for one in left_out], 1)
    lengths = np.sqrt(classes / n) * np.linalg.norm(e, axis=0)
    system = np.concatenate([e, np.diag(lengths)])
    theta = nnls(system, np.concatenate([y0.ravel(), lengths * prior]))[0]
    if shot.max() == 0 or not learned:
        theta = prior
    mixed = (e @ theta).reshape(n, classes)
    temperatures = np.logspace(0, np.log10(64), 25)
    losses = [-log_softmax(t * mixed, 1)[np.arange(n), labels].mean() for t in temperatures]
    temperature = temperatures[np.argmin(losses)]
    return temperature * sum(t * w for t, w in zip(theta, experts, strict=True)), theta


def fitted(model, labels, seed=0, **options):
    classes = int(labels.max()) + 1
    method = SolvedPALM(model, class_names(classes), **options)
    assert fit(method, draw_clips(model, labels, seed), labels) == []
    return method


OPTIONS = [
    {},
    {"centre": False},
    {"shrink": False},
    {"norm_term": False},
    {"discount": False},
    {"shrink": False, "discount": False},
    {"text": False},
    {"fixed_theta": "prior"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_solution_is_the_direct_one(options, labels):
    model = Space()
    method = fitted(model, labels, **options)
    plain = {"text": "use_text", "fixed_theta": "learned"}
    given = {plain.get(name, name): value is True for name, value in options.items()}
    weights, theta = direct(draw_clips(model, labels), labels, method.f, **given)
    np.testing.assert_allclose(method.solution.theta, theta, atol=1e-8)
    np.testing.assert_allclose(method.solution.weights, weights, atol=1e-7)


def test_the_options_matter():
    """So that the test above is none of a switch that does nothing."""
    model, labels = Space(), SUPPORTS["four shots"]
    weights = [fitted(model, labels, **options).solution.weights for options in OPTIONS]
    for n, one in enumerate(weights):
        for other in weights[:n]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("form", [solved.ridge_by_clips, solved.ridge_by_dimensions])
@pytest.mark.parametrize("ridge", RIDGES)
def test_predictions_of_clips_left_out_are_those_of_a_refit(form, ridge, labels):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((len(labels), 30)))
    y = F.one_hot(labels).double() - 1 / (labels.max() + 1)
    folds = solved.split_shots(labels)
    assert torch.equal(torch.cat(folds).sort().values, torch.arange(len(labels)))
    assert all(len(labels[fold].unique()) == len(fold) for fold in folds)
    gram = x @ x.T if form is solved.ridge_by_clips else x.T @ x
    weights, left_out = form(x, y, gram, ridge, folds)

    def refit(chosen):
        system = x[chosen].T @ x[chosen] + ridge * torch.eye(30).double()
        return torch.linalg.solve(system, x[chosen].T @ y[chosen])

    torch.testing.assert_close(weights, refit(torch.arange(len(x))), atol=1e-9, rtol=0)
    for fold in folds:
        rest = torch.tensor(np.setdiff1d(np.arange(len(x)), fold))
        torch.testing.assert_close(left_out[fold], x[fold] @ refit(rest), atol=1e-9, rtol=0)


@pytest.mark.parametrize("dim", [64, 80, 100])
def test_both_forms_of_the_ridge_agree(dim):
    """The system of clips and that of dimensions, for fewer and for more clips than dimensions."""
    labels = make_labels(10, 8)
    x = draw_clips(Space(dim), labels)
    y, folds = F.one_hot(labels).double() - 0.1, solved.split_shots(labels)
    one = solved.ridge_by_clips(x, y, x @ x.T, 0.03, folds)
    other = solved.ridge_by_dimensions(x, y, x.T @ x, 0.03, folds)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=0)


def test_the_smaller_system_is_solved(monkeypatch):
    used = []
    for name in ("ridge_by_clips", "ridge_by_dimensions"):
        real = getattr(solved, name)
        monkeypatch.setattr(
            solved, name, lambda *a, real=real, name=name: used.append(name) or real(*a)
        )
    fitted(Space(40), make_labels(5, 8))
    fitted(Space(39), make_labels(5, 8))
    assert used == ["ridge_by_clips"] * 2 + ["ridge_by_dimensions"] * 2


@pytest.mark.parametrize("seed", range(20))
def test_theta_is_that_of_the_whole_system(seed):
    """Experts that are noise have theta 0, so the bound is tested too."""
    rng = np.random.default_rng(seed)
    target = torch.tensor(rng.standard_normal((30, 5)))
    left_out = [torch.tensor(rng.standard_normal((30, 5))) + rng.normal() * target for _ in "abc"]
    prior = solved.prior_theta(left_out, target)
    e = np.stack([one.numpy().ravel() for one in left_out], 1)
    lengths = np.sqrt(5 / 30) * np.linalg.norm(e, axis=0)
    expected = nnls(
        np.concatenate([e, np.diag(lengths)]),
        np.concatenate([target.numpy().ravel(), lengths * prior.numpy()]),
    )[0]
    np.testing.assert_allclose(solved.choose_theta(left_out, target, prior), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "scale", "close"), [(torch.float32, 200, 1e-4), (torch.float64, 1000, 1e-9)]
)
def test_softmax_is_that_of_the_weights(dtype, scale, close, labels):
    """Of the probabilities in float32, and of their logarithms in float64."""
    model = Space(dtype=dtype, logit_scale=scale)
    method = fitted(model, labels)
    test = draw_clips(model, labels, seed=1)
    expected = test.double() @ method.solution.weights.T
    got = predict(method, test).double()
    torch.testing.assert_close(got.softmax(1), expected.softmax(1), atol=close, rtol=0)
    if dtype == torch.float64:
        torch.testing.assert_close(got.log_softmax(1), expected.log_softmax(1), atol=close, rtol=0)
    assert expected.softmax(1).max() > 0.5


def test_palm_takes_its_state_and_its_file(tmp_path, labels):
    model = Space(dtype=torch.float32)
    method = fitted(model, labels)
    test = draw_clips(model, labels, seed=1)
    state = method.prompt_learner_state()
    assert set(state) == {"ctx", "lambdas"}  # the published code's names
    palm, read = (PALM(model, method.class_names, seed=3) for _ in range(2))
    palm.load_prompt_learner(state)
    save_prompt(tmp_path / "prompt.pt", method)
    load_prompt(tmp_path / "prompt.pt", read)
    assert torch.equal(predict(palm, test), predict(method, test))
    assert torch.equal(predict(read, test), predict(method, test))


def test_its_parameters_are_those_of_the_weights(labels):
    """Prompts lie on the unit sphere, and lambda leaves the text its part of the weights."""
    method = fitted(Space(logit_scale=1000), labels)
    weight = method.lambdas[:, None]
    prompts = (1 - weight) * method.f + weight * method.z
    torch.testing.assert_close(prompts.norm(dim=1), torch.ones(len(prompts)).double())
    share = float(method.solution.theta[0]) * method.solution.temperature / 1000
    assert 0 < share < 1
    torch.testing.assert_close(1 - method.lambdas, torch.full_like(method.lambdas, share))
    apart = method.solution.weights - method.solution.weights.mean(0)
    torch.testing.assert_close(1000 * (prompts - prompts.mean(0)), apart)


def test_a_small_logit_scale_lowers_the_temperature_only():
    labels = SUPPORTS["four shots"]
    large, small = (fitted(Space(logit_scale=scale), labels) for scale in (100.0, 0.5))
    test = draw_clips(large.model, labels, seed=1)
    expected, got = (predict(one, test).log_softmax(1) for one in (large, small))
    expected, got = (one - one.mean(1, keepdim=True) for one in (expected, got))
    factor = (got * expected).sum() / (expected * expected).sum()
    assert 0 < factor < 0.5
    torch.testing.assert_close(got, factor * expected, atol=1e-9, rtol=0)


def test_one_shot_has_the_prior():
    solution = fitted(Space(), make_labels(5, 1)).solution
    theta = solution.theta
    # The text's weight is solved for, to the rounding of a processor; the ridges have no choice.
    torch.testing.assert_close(theta, solution.prior, rtol=1e-12, atol=0)
    assert torch.equal(theta[1:], solution.prior[1:])
    assert theta[0] > 0 and theta[1] == 0 and 0 < theta[2] < 1


@pytest.mark.parametrize("seed", range(5))
def test_one_shot_without_text_has_no_temperature(seed):
    """All predictions of clips left out are 0, and rounding of them must choose nothing."""
    solution = fitted(Space(), make_labels(5, 1), seed, text=False).solution
    assert solution.temperature == 1
    assert not solution.left_out.any()


@pytest.mark.parametrize("seed", range(5))
def test_prompts_are_on_the_side_of_the_texts(labels, seed):
    """Two prompts of each class give the same softmax, mirrored in a direction of no class."""
    method = fitted(Space(logit_scale=1000), labels, seed)
    prompts = (1 - method.lambdas[:, None]) * method.f + method.lambdas[:, None] * method.z
    assert prompts.mean(0) @ method.f.mean(0) > 0


def test_theta_can_be_given():
    method = fitted(Space(), UNEVEN, ridges=[1.0], fixed_theta=(0.25, 2))
    assert method.solution.theta.tolist() == [0.25, 2]


def test_a_class_without_clips_has_its_text_alone():
    model = Space(logit_scale=1000)
    labels = torch.tensor([0, 1, 3, 0, 1, 3])
    method = fitted(model, labels)
    rest = fitted_without(model, labels, absent=2)
    keep = [0, 1, 3]
    test = draw_clips(model, make_labels(4, 5), seed=1)
    got, alone = predict(method, test), predict(rest, test)
    torch.testing.assert_close(got[:, keep].softmax(1), alone.softmax(1), atol=1e-9, rtol=0)
    assert (got.argmax(1) == 2)[make_labels(4, 5) == 2].double().mean() > 0.5


def fitted_without(model, labels, absent):
    """As if the absent class were not one of the task."""
    names = [name for n, name in enumerate(class_names(4)) if n != absent]
    method = SolvedPALM(model, names)
    fit(method, draw_clips(model, labels), labels - (labels > absent).long())
    return method


def test_what_cannot_be_solved_is_an_error():
    model = Space()
    with pytest.raises(ValueError, match="two classes"):
        fit(SolvedPALM(model, class_names(3)), draw_clips(model, torch.ones(3).long()), [1, 1, 1])
    with pytest.raises(ValueError, match="class 1 has none"):
        fitted(model, torch.tensor([0, 2, 0, 2]), text=False)


@pytest.mark.parametrize(
    "options",
    [
        {"ridges": ()},
        {"ridges": (0.0, 1.0)},
        {"ridges": (-1.0,)},
        {"ridges": (10**400,)},
        {"scale": 10**400},
        {"ridges": "3"},
        {"centre": 1},
        {"norm_term": None},
        {"shrink": 0.5},
        {"discount": 1},
        {"text": "yes"},
        {"fixed_theta": (1.0, 2.0)},
        {"fixed_theta": (1.0, -2.0, 0.0)},
        {"fixed_theta": "best"},
    ],
    ids=str,
)
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SolvedPALM(Space(), class_names(3), **options)


class TestDegenerate:
    """Finite logits, and the right ones where something can be said about them."""

    def test_identical_clips(self):
        """The ridges are 0, so the text decides."""
        model = Space()
        method = SolvedPALM(model, class_names(4))
        fit(method, draw_clips(model, torch.zeros(1).long()).repeat(8, 1), make_labels(4, 2))
        assert predict(method, draw_clips(model, make_labels(4, 3), seed=1)).isfinite().all()

    def test_clips_without_a_common_direction(self):
        model = Space(dim=8)
        x = torch.eye(8).double()[[0, 0, 1, 1]] * torch.tensor([1, 1, -1, -1])[:, None]
        x[2:] = -x[:2]
        method = SolvedPALM(model, ["this", "that"])
        fit(method, x, torch.tensor([0, 0, 1, 1]))
        assert predict(method, x).argmax(1).tolist() == [0, 0, 1, 1]

    def test_two_classes_in_two_dimensions(self):
        model = Space(dim=2)
        method = SolvedPALM(model, ["this", "that"])
        x = F.normalize(torch.tensor([[1, 0.1], [1, 0.2], [0.1, 1], [0.2, 1]]), dim=-1).double()
        fit(method, x, torch.tensor([0, 0, 1, 1]))
        got = predict(method, x)
        expected = x @ method.solution.weights.T
        assert got.argmax(1).tolist() == [0, 0, 1, 1]
        torch.testing.assert_close(got.softmax(1), expected.softmax(1), atol=1e-9, rtol=0)

    @pytest.mark.parametrize("classes", [63, 64])
    def test_as_many_classes_as_dimensions_are_exact(self, classes):
        got, expected = self.logits(classes, logit_scale=1000)
        torch.testing.assert_close(got.softmax(1), expected.softmax(1), atol=1e-9, rtol=0)

    @pytest.mark.parametrize(("classes", "agree"), [(66, 0.98), (128, 0.93)])
    def test_more_classes_than_dimensions_are_not(self, classes, agree):
        """Prompts of equal norm do not exist then; a warning says so. 66 of 64 is as 527 of 512."""
        with pytest.warns(UserWarning, match=f"{classes} prompts of equal norm do not exist in 64"):
            got, expected = self.logits(classes)
        assert (got.argmax(1) == expected.argmax(1)).double().mean() > agree

    def logits(self, classes, **settings):
        """Of the method, and of its solved weights."""
        model, labels = Space(dim=64, **settings), make_labels(classes, 4)
        method = fitted(model, labels)
        test = draw_clips(model, labels, seed=1)
        return predict(method, test), test @ method.solution.weights.T

    def test_texts_that_are_all_equal(self):
        class Same(Space):
            def encode_text(self, prompts):
                return super().encode_text(["same"] * len(prompts))

        labels = SUPPORTS["four shots"]
        method = SolvedPALM(Same(), class_names(5))
        clips = draw_clips(Space(), labels)
        fit(method, clips, labels)
        assert method.solution.theta[0] == 0
        assert (predict(method, clips).argmax(1) == labels).double().mean() > 0.9


def test_nothing_is_random(labels):
    """Neither the method's seed nor an earlier fit plays a part."""
    model = Space(dtype=torch.float32)
    one, other = fitted(model, labels), fitted(model, labels)
    seeded = fitted(model, labels, seed=1)
    fit(seeded, draw_clips(model, labels), labels)
    for method in (other, seeded):
        for name, value in one.prompt_learner_state().items():
            assert torch.equal(method.prompt_learner_state()[name], value)


def test_seed_of_the_method_plays_no_part(labels):
    model = Space()
    states = []
    for seed in (0, 1):
        method = SolvedPALM(model, class_names(int(labels.max()) + 1), seed=seed)
        fit(method, draw_clips(model, labels), labels)
        states.append(method.prompt_learner_state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_settings_of_sgd_are_ignored_and_epochs_averaged():
    model, labels = Space(), SUPPORTS["four shots"]
    clips = draw_clips(model, labels)
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0)).double() / 10
    method, stream = (SolvedPALM(model, class_names(5)) for _ in range(2))
    fit(method, clips, labels, epochs=3, lr=1.0)
    fit(stream, torch.stack([clips + noise, clips - noise]), labels, epochs=2)
    torch.testing.assert_close(method.z, stream.z)


def test_hundreds_of_classes():
    """As FSD50K-like tasks have, at a quarter of the size."""
    model, labels = Space(dim=256, dtype=torch.float32), make_labels(131, 16)
    method = fitted(model, labels)
    test = draw_clips(model, labels, seed=1)
    got = predict(method, test).double().softmax(1)
    expected = (test.double() @ method.solution.weights.T).softmax(1)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    assert (got.argmax(1) == labels).double().mean() > 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_cuda_has_the_solution_of_the_cpu(labels):
    """Every tensor of `solve` is on the clips' device, or a number."""
    model = Space()
    text = model.encode_text(class_names(int(labels.max()) + 1))
    about = (draw_clips(model, labels), labels, text)
    here, there = solved.solve(*about), solved.solve(*(one.cuda() for one in about))
    torch.testing.assert_close(there.weights.cpu(), here.weights, rtol=0, atol=1e-9)
    torch.testing.assert_close(there.theta, here.theta, rtol=0, atol=1e-9)
