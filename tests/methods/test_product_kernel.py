"""The product kernel of two models against its equation, written here in NumPy in float64."""

import itertools

import numpy as np
import pytest
import torch
from rival_data import NAMES, SCALE, TextModel, table, unit
from toy_models import WordModel

from palmkit import METHODS, fit, predict
from palmkit.experiments.trials import Trial
from palmkit.experiments.variations import ProjectedModel
from palmkit.methods.kernel_ridge import KERNELS, PRIORS, published_settings
from palmkit.models import AudioHalf, ModelPair

pytestmark = pytest.mark.usefixtures("one_thread")
DIMS = (12, 5)
PRODUCT = METHODS["product-kernel-ridge"]


class OtherModel(TextModel):
    """Another model with a prompt and a scale of its own."""

    prompt, logit_scale = "{} it is", 3.0

    def __init__(self, dim=DIMS[1]):
        super().__init__(dim, salt="other")


PAIR = ModelPair(TextModel(), OtherModel())
T1 = TextModel().encode_text([f"a sound of {name}" for name in NAMES]).numpy()
T2 = OtherModel().encode_text([f"{name} it is" for name in NAMES]).numpy()


def halves(counts, seed=0):
    """Features of both models for the same clips, float64 and not of unit length, and labels."""
    first, labels = table(counts, DIMS[0], seed)
    second = torch.randn(len(labels), DIMS[1], generator=torch.Generator().manual_seed(seed + 50))
    return first.double(), second.double() + labels[:, None] / 3, labels


SUPPORTS = {"even": halves([5, 5, 5, 5]), "uneven": halves([1, 7, 3, 4])}
TEST1, TEST2, _ = halves([6, 6, 6, 6], seed=7)
TEST = torch.cat([TEST1, TEST2], 1)


@pytest.fixture(params=SUPPORTS)
def support(request):
    return SUPPORTS[request.param]


def fitted(support, model=PAIR, **options):
    method = PRODUCT(model, NAMES, **options)
    fit(method, torch.cat(support[:2], 1), support[2])
    return method


def logits_of(support, model=PAIR, **options):
    return predict(fitted(support, model, **options), TEST).numpy()


def by_hand(train, test, labels, betas, lam, kernel, prior, form):
    """f of the equation, clip by clip; the kernels of one model have the other's beta at 0."""
    weights = {"first": (1, 0), "second": (0, 1), "both": (0.5, 0.5)}[prior]
    beta, beta2 = betas[0] * (kernel != "second"), betas[1] * (kernel != "first")

    def prior_of(one, two):
        return weights[0] * one @ T1.T + weights[1] * two @ T2.T

    def k(x, y):
        return np.exp(-beta * (1 - x[0] @ y[0]) - beta2 * (1 - x[1] @ y[1]))

    pairs, tests = ([*zip(*one, strict=True)] for one in (train, test))
    K = np.array([[k(x, y) for y in pairs] for x in pairs])
    R = np.eye(len(NAMES))[labels] - prior_of(*train)
    if form == "proker":
        A = np.linalg.solve(K / lam + np.eye(len(K)), R)
    else:
        A = np.linalg.solve(K + lam * np.eye(len(K)), R)
    return prior_of(*test) + np.array([[k(x, y) for y in pairs] for x in tests]) @ A


@pytest.mark.parametrize("form", ["proker", "ridge"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("prior", PRIORS)
def test_it_is_the_equation(support, kernel, prior, form):
    options = dict(beta=1.7, beta2=0.6, lam=0.2, kernel=kernel, prior=prior, form=form)
    train, test = (unit(support[0]), unit(support[1])), (unit(TEST1), unit(TEST2))
    f = by_hand(train, test, support[2].numpy(), (1.7, 0.6), 0.2, kernel, prior, form)
    scale = {"first": SCALE, "second": 3.0, "both": (SCALE + 3) / 2}[prior]
    np.testing.assert_allclose(logits_of(support, **options), scale * f, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shots", [1, 4, 16])
def test_the_defaults_are_halves_of_the_published_beta(shots):
    beta, lam = published_settings(shots)
    support = halves([shots] * 4)
    got = logits_of(support)
    given = logits_of(support, beta=beta / 2, beta2=beta / 2, lam=lam)
    np.testing.assert_allclose(got, given, rtol=0, atol=1e-12)
    assert fitted(support).beta_used.tolist() == pytest.approx([beta / 2, beta / 2])
    assert fitted(support, kernel="first").beta_used.tolist() == [beta, 0]
    assert fitted(support, kernel="second", beta=9.0).beta_used.tolist() == [0, beta]


def test_two_equal_models_are_one(support):
    first, _, labels = support
    twice = fitted((first, first, labels), ModelPair(TextModel(), TextModel()))
    one = METHODS["kernel-ridge"](TextModel(), NAMES)
    fit(one, first, labels)
    got, expected = predict(twice, torch.cat([TEST1, TEST1], 1)), predict(one, TEST1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    held = twice.leave_out_logits(torch.cat([first, first], 1), labels)
    torch.testing.assert_close(held, one.leave_out_logits(first, labels), rtol=0, atol=1e-10)


def test_both_priors_are_kernel_ridge_on_concatenated_features(support):
    one = METHODS["kernel-ridge"](PAIR, NAMES)
    first, second = (torch.from_numpy(unit(half)) for half in support[:2])
    fit(one, torch.cat([first, second], 1), support[2])
    test = torch.cat([torch.from_numpy(unit(half)) for half in (TEST1, TEST2)], 1)
    got = logits_of(support, prior="both")
    np.testing.assert_allclose(got, predict(one, test), rtol=0, atol=1e-10)


@pytest.mark.parametrize("half", ["first", "second"])
def test_the_ablation_with_one_model_is_kernel_ridge_with_it(support, half):
    place = ("first", "second").index(half)
    one = METHODS["kernel-ridge"](PAIR.encoders[place], NAMES)
    fit(one, support[place], support[2])
    got = logits_of(support, kernel=half, prior=half)
    np.testing.assert_allclose(got, predict(one, (TEST1, TEST2)[place]), rtol=0, atol=1e-10)


def test_the_two_models_change_places(support):
    """B + A with the other prior and the betas exchanged gives the logits of A + B."""
    turned = ModelPair(*PAIR.encoders[::-1])
    method = PRODUCT(turned, NAMES, beta=0.6, beta2=1.7, lam=0.2, prior="second")
    fit(method, torch.cat([support[1], support[0]], 1), support[2])
    got = predict(method, torch.cat([TEST2, TEST1], 1)).numpy()
    expected = logits_of(support, beta=1.7, beta2=0.6, lam=0.2)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


def test_the_length_of_a_half_does_not_count(support):
    """Features of a pair have halves of length 1 / sqrt(2); any other length gives the same."""
    first, second, labels = support
    longer = fitted((first * 7, second / 3, labels))
    expected = torch.from_numpy(logits_of(support))
    torch.testing.assert_close(predict(longer, TEST / 5), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_leaving_shots_out_is_fitting_without_them(kernel, prior):
    options = dict(beta=1.7, beta2=0.6, lam=0.2, kernel=kernel, prior=prior)
    first, second, labels = SUPPORTS["even"]
    x = torch.cat([first, second], 1)
    method = PRODUCT(PAIR, NAMES, **options)
    got = method.leave_out_logits(x, labels)
    seen, folds = [0] * len(NAMES), []
    for label in labels.tolist():
        folds.append(seen[label])
        seen[label] += 1
    folds, expected = torch.tensor(folds), torch.empty_like(got)
    for fold in folds.unique():
        other = method.blank()
        fit(other, x[folds != fold], labels[folds != fold])
        expected[folds == fold] = predict(other, x[folds == fold])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


def test_a_second_model_without_texts(support):
    """The same numbers, with the first model's scale, and no prior of the second's."""
    half = ModelPair(TextModel(), AudioHalf(OtherModel()))
    np.testing.assert_allclose(logits_of(support, half), logits_of(support), rtol=0, atol=1e-10)
    for prior in ("second", "both"):
        with pytest.raises(ValueError, match=rf"prior='{prior}': texts \(audio\) has no texts"):
            PRODUCT(half, NAMES, prior=prior)


def test_a_prompt_and_a_scale(support):
    """A prompt option is the wording of both models; a scale replaces that of either."""
    plain, other = (fitted(support, prompt=one, prior="both") for one in (None, "{} it is"))
    first, second = other.halves(other.text * 2**0.5)
    np.testing.assert_allclose(second, T2, atol=1e-12)
    assert np.abs(first.numpy() - T1).max() > 0.1
    assert not torch.allclose(predict(plain, TEST), predict(other, TEST))
    scaled = fitted(support, scale=2.0)
    assert (scaled.logit_scale, fitted(support).logit_scale) == (2.0, SCALE)


def test_one_model_is_refused():
    for model in (TextModel(), ProjectedModel(PAIR, torch.eye(17)[:, :4])):
        with pytest.raises(ValueError, match="needs two models, and .* is one: use --checkpoint A"):
            PRODUCT(model, NAMES)
    with pytest.raises(ValueError, match="pca_dim: its axes mix the features of two models"):
        Trial("product-kernel-ridge", "x", options={"pca_dim": 3})
    assert PRODUCT(ModelPair(WordModel(), WordModel()), NAMES).input_dim == 96


def test_what_it_owns_and_what_it_leaves_alone():
    """As tests/kit/test_training.py has it for methods of one model."""
    one, other = WordModel(), WordModel()
    digests = one.digest(), ModelPair(one, other).digest()
    method = PRODUCT(ModelPair(one, other), ["{}", "{0} {name}", "dog"])
    assert method.class_names == ["{}", "{0} {name}", "dog"]  # data, no format strings
    x = torch.randn(9, 96, generator=torch.Generator().manual_seed(0))
    fit(method, x, torch.arange(9) % 3)
    assert {*dict(method.named_parameters())} == {"keys", "dual", "beta_used"}
    assert {*dict(method.named_buffers())} == {"text"}
    state = method.prompt_learner_state()
    logits = predict(method, x)
    alone = torch.cat([predict(method, clip[None]) for clip in x])
    torch.testing.assert_close(logits, alone)
    assert not logits.requires_grad
    after = method.prompt_learner_state()
    assert all(torch.equal(after[name], kept) for name, kept in state.items())
    assert (one.digest(), ModelPair(one, other).digest()) == digests


def test_choices_have_a_kernel_of_each_model_alone():
    values = [PRODUCT.choices[name] for name in ("beta", "beta2", "lam")]
    assert (0.0, None, None) in itertools.product(*values)
    assert (None, 0.0, None) in itertools.product(*values)
