"""PALM's parameters in closed form, without gradient steps.

A linear classifier without bias on unit features has PALM's shape: w_c = R f'_c with unit f'_c, up
to a vector that all classes share, and f'_c = (1 - lambda) f_c + lambda z_c. Methods of this shape
differ only in how they find z and lambda. Here w is a non-negative sum of three experts: the text
and two ridge regressions. Their weights come from predictions of the support set that leave out
one clip of every class.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from palmkit.methods.base import is_finite, normalize
from palmkit.methods.palm import PALM

TEMPERATURES = torch.logspace(0, math.log10(64), 25, dtype=torch.float64)
# Below this mean of x . u over the support set, x . u / mean does not stand for a constant.
SMALLEST_COMMON = 0.05
SMALLEST_SPREAD = 1e-12  # of clips around their common direction; below it the ridges are 0
ROUNDING = 1e-20  # predictions of a smaller squared norm, relative to the target's, are rounding
SAME_NORM = 1e-6  # relative
SMALLEST_LAMBDA, LARGEST_LAMBDA = 0.01, 1 - 1e-6  # so that z and its logit are finite


class SolvedPALM(PALM):
    """PALM's z and lambda, computed from the support set instead of learned by SGD.

    The class's text embeddings f, its parameters, its forward and its files are PALM's. `fit` has
    no steps, no random numbers and no settings. It returns [].

        w_c = tau (theta_0 text_c + sum_j theta_j ridge_j,c),   100 f'_c = w_c + v,
        1 - lambda = tau theta_0 / 100,   z_c = (f'_c - (1 - lambda) f_c) / lambda

    With x~ = x - (x . u) u, u the direction of the mean of class means, and t~_c the same of the
    text minus the mean text:
        text_c = t~_c - h_c u / mean(x . u), with u removed as far as its estimate is no noise;
        h_c = g |t~_c|^2 / 2 minus its mean over classes;
        ridge_j = X~' (X~ X~' + r_j sigma I)^-1 Y0,   Y0 = one-hot - 1 / c,   sigma = mean |x~|^2;
        theta >= 0: least squares of Y0 on predictions that leave out one clip of every class;
        tau: the temperature of the least cross-entropy on the same predictions;
        v: makes the norms of all w_c + v equal to the logit scale, here 100.

    A class without clips is classified by its text alone. `fit` raises ValueError if fewer than
    two classes have clips, or if a class has none and text=False.

    For ablations:
    ridges: penalties of the ridge regressions, in units of the clips' mean squared distance from
        their common direction;
    centre: False keeps the direction that all clips share;
    shrink: False removes that direction from the texts in full, however noisy it is;
    norm_term: False omits the text's norm in the text expert;
    discount: False gives the last ridge the prior weight 1, however much the text explains;
    text: False omits the text expert;
    fixed_theta: weights of the text and of each ridge; "prior": those without leaving out; None:
        by leaving out.
    scale: of the logits; None is the model's. It sets the radius of PALM's prompts.
    """

    name = "solved-palm"
    label = "Solved PALM"
    color = "#004d40"
    own_fit = True

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        ridges=(0.03, 3.0),
        centre=True,
        shrink=True,
        norm_term=True,
        discount=True,
        text=True,
        fixed_theta=None,
        scale=None,
    ):
        super().__init__(model, class_names, seed, scale=scale)
        switches = {"centre": centre, "shrink": shrink, "norm_term": norm_term}
        switches |= {"discount": discount, "text": text}
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise ValueError(f"{name}={value!r}: use True or False")
        self.ridges = check_numbers("ridges", ridges)
        if 0 in self.ridges:
            raise ValueError(f"ridges={ridges!r}: use numbers over 0")
        if fixed_theta not in (None, "prior"):
            fixed_theta = check_numbers("fixed_theta", fixed_theta, 1 + len(self.ridges))
        self.centre, self.shrink, self.norm_term = centre, shrink, norm_term
        self.discount, self.text, self.fixed_theta = discount, text, fixed_theta
        self.solution: Solution | None = None  # of the last fit

    def fit(self, features, labels, **settings) -> list[float]:
        """Solve for z and lambda. The mean over epochs is taken of features that change with it."""
        self._check_support(labels)
        device = "cpu" if features.device.type == "mps" else features.device  # MPS has no float64
        table = features if features.ndim == 2 else features.mean(0)
        x, f = (normalize(one.to(device).double()) for one in (table, self.f))
        self.solution = solve(
            x,
            labels.to(device),
            f,
            ridges=self.ridges,
            centre=self.centre,
            shrink=self.shrink,
            norm_term=self.norm_term,
            discount=self.discount,
            use_text=self.text,
            fixed_theta=self.fixed_theta,
        )
        share = self.solution.temperature * float(self.solution.theta[0])
        z, lambda_logit = as_prompts(self.solution.weights, f, share, self.logit_scale)
        with torch.no_grad():
            self.z.copy_(z)
            self.lambda_logits.fill_(lambda_logit)
        return []

    def _check_support(self, labels) -> None:
        present = set(labels.unique().tolist())
        absent = [name for n, name in enumerate(self.class_names) if n not in present]
        if len(present) < 2:
            raise ValueError("the support set needs clips of two classes or more")
        if absent and not self.text:
            raise ValueError(f"without text, every class needs clips; {', '.join(absent)} has none")


def check_numbers(name: str, values, length: int | None = None) -> tuple[float, ...]:
    """Finite numbers of 0 or more as a tuple. Raises ValueError."""
    values = tuple(values) if isinstance(values, list | tuple) else (values,)
    right = all(is_finite(value) and value >= 0 for value in values) and len(values) > 0
    if not right or length not in (None, len(values)):
        many = "one or more" if length is None else length
        raise ValueError(f"{name}={values!r}: use {many} numbers of 0 or more")
    return tuple(float(value) for value in values)


@dataclass(frozen=True)
class Solution:
    """weights [c, d]: logits are x @ weights.T, temperature included.

    theta: weights of the text and of each ridge. prior: theta without leaving out.
    left_out [n, present classes]: predictions of the support set, of clips left out, times theta.
    """

    weights: torch.Tensor
    theta: torch.Tensor
    prior: torch.Tensor
    temperature: float
    left_out: torch.Tensor


def solve(
    x,
    labels,
    text,
    ridges=(0.03, 3.0),
    centre=True,
    shrink=True,
    norm_term=True,
    discount=True,
    use_text=True,
    fixed_theta=None,
) -> Solution:
    """The classifier of unit clips x [n, d], labels [n] and unit texts [c, d], all in float64."""
    present, y = labels.unique(return_inverse=True)
    member = F.one_hot(y, len(present)).to(x)  # [n, present]
    target = member - 1 / len(present)
    means = (member / member.sum(0)).T @ x  # [present, d]
    u = common_direction(means)  # [d]
    removed = u if centre else torch.zeros_like(u)
    apart = text - text[present].mean(0)  # [c, d]
    clips, spread = without(x, removed), without(apart, removed)
    text_weights = torch.zeros_like(text)
    if use_text:
        part = certainty(x, member, apart[present]) if shrink else 1
        text_weights = without(apart, removed, part)
        common = (x @ u).mean()
        if norm_term and common > SMALLEST_COMMON:
            bias = text_bias(spread, without(means, removed), present)  # [c]
            text_weights = text_weights - bias[:, None] * u / common
    experts = [text_weights]
    left_out = [x @ text_weights[present].T]  # each [n, present]
    folds = split_shots(y)
    for ridge, predictions in solve_ridges(clips, target, ridges, folds):
        experts.append(torch.zeros_like(text).index_copy(0, present, ridge.T))
        # Without its only shot a ridge is 0; the formula's rounding would choose the temperature.
        left_out.append(predictions if len(folds) > 1 else torch.zeros_like(predictions))
    prior = prior_theta(left_out, target, discount)
    theta = choose_theta(left_out, target, prior, fixed_theta)
    if not use_text:
        theta[0] = prior[0] = 0
    mixed = sum(weight * one for weight, one in zip(theta.tolist(), left_out, strict=True))
    temperature = choose_temperature(mixed, y)
    weights = sum(weight * one for weight, one in zip(theta.tolist(), experts, strict=True))
    return Solution(temperature * weights, theta, prior, temperature, mixed)


def common_direction(means) -> torch.Tensor:
    """u [d], the direction of the mean of class means [c, d]; zeros if that mean is 0."""
    mean = means.mean(0)
    length = mean.norm()
    return mean / length if length > 1e-6 else torch.zeros_like(mean)


def without(x, u, part=1) -> torch.Tensor:
    """Rows of x [n, d] without their part along u [d], or without a part of that."""
    return x - part * (x @ u)[:, None] * u


def certainty(x, member, text) -> torch.Tensor:
    """How much of the mean clip's cosines with the texts is no noise, from 0 to 1.

    x [n, d]; member [n, c], one-hot; text [c, d] without its mean. To remove the common direction
    subtracts from class c about m . t_c, which the support set estimates. This is the factor of
    James and Stein for such an estimate: 1 - noise / |estimate|^2, or 0 if that is negative.
    """
    counts = member.sum(0)
    mean = ((member / counts).T @ x).mean(0)
    noise = (x @ text.T).var(0, correction=0).sum() * (1 / counts).mean() / len(counts)
    signal = (text @ mean).square().sum()
    return (1 - noise / signal).clamp(min=0) if signal > 0 else signal


def text_bias(text, means, present) -> torch.Tensor:
    """h [c]: half the squared norm of a class's mean clip, as far as the text explains it.

    text [c, d] and means [present classes, d], both without the common direction. A classifier by
    the nearest mean g t has the logits x . t - g |t|^2 / 2, up to g.
    """
    squares = text.square().sum(1)  # [c]
    explained = squares[present].sum()
    scale = (means * text[present]).sum() / explained if explained > 0 else explained
    half = scale.clamp(min=0) * squares / 2
    return half - half[present].mean()


def split_shots(y) -> list[torch.Tensor]:
    """Indices of the first clip of every class, of the second of every class, and so on."""
    order = y.argsort(stable=True)
    counts = y.bincount()
    starts = counts.cumsum(0) - counts
    shot = torch.empty_like(y)
    shot[order] = torch.arange(len(y), device=y.device) - starts[y[order]]
    return [(shot == number).nonzero().flatten() for number in range(int(counts.max()))]


def solve_ridges(x, y, ridges, folds):
    """(weights [d, c], predictions [n, c] of each fold by the ridge without it) of every ridge.

    x [n, d], y [n, c]. The penalty is ridge times the mean squared norm of x's rows. Whichever is
    smaller is solved, the system of clips [n, n] or that of dimensions [d, d].
    """
    n, d = x.shape
    solve_one = ridge_by_clips if n <= d else ridge_by_dimensions
    gram = x @ x.T if n <= d else x.T @ x
    spread = (gram.trace() / n).clamp(min=SMALLEST_SPREAD)
    for ridge in ridges:
        yield solve_one(x, y, gram, ridge * spread, folds)


def ridge_by_clips(x, y, gram, penalty, folds):
    """Weights [d, c] and left-out predictions [n, c] from gram = x x' [n, n].

    With G = (gram + penalty I)^-1, a fold b is predicted by y_b - (G_bb)^-1 (G y)_b.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(add_diagonal(gram, penalty)))
    dual = inverse @ y
    left_out = torch.empty_like(y)
    for fold in folds:
        block = inverse[fold][:, fold]
        left_out[fold] = y[fold] - torch.linalg.solve(block, dual[fold])
    return x.T @ dual, left_out


def ridge_by_dimensions(x, y, gram, penalty, folds):
    """The same from gram = x' x [d, d].

    With H = x (gram + penalty I)^-1 x', a fold b is predicted by y_b - (I - H_bb)^-1 (y - H y)_b.
    """
    factor = torch.linalg.cholesky(add_diagonal(gram, penalty))
    weights = torch.cholesky_solve(x.T @ y, factor)
    half = torch.linalg.solve_triangular(factor, x.T, upper=False)  # [d, n]; H = half' half
    residual = y - x @ weights
    left_out = torch.empty_like(y)
    for fold in folds:
        block = add_diagonal(-half[:, fold].T @ half[:, fold], 1)
        left_out[fold] = y[fold] - torch.linalg.solve(block, residual[fold])
    return weights, left_out


def add_diagonal(matrix, value) -> torch.Tensor:
    return matrix + value * torch.eye(len(matrix)).to(matrix)


def prior_theta(left_out, target, discount=True) -> torch.Tensor:
    """Weights of the experts without leaving out: s for the text, 0, ..., 0, 1 - R^2.

    s is the text's least squares, and R^2 the part of the target that it explains. For independent
    predictions of the target, regression gives one the more weight, the less the other explains.
    discount=False: 1 instead of 1 - R^2.
    """
    prior = torch.zeros(len(left_out), dtype=torch.float64)
    prior[-1] = 1
    # On the CPU, as the prior: a number of a GPU cannot be subtracted from it in place.
    square, full = left_out[0].square().sum().cpu(), target.square().sum().cpu()
    product = (left_out[0] * target).sum().cpu()
    if square > ROUNDING * full and product > 0:
        prior[0] = product / square
        prior[-1] -= discount * product.square() / (square * full)
    return prior


def choose_theta(left_out, target, prior, fixed_theta=None) -> torch.Tensor:
    """theta >= 0 of the least |target - sum theta_j e_j|^2 + penalty, on left-out predictions e.

    The penalty is (classes / clips) sum |e_j|^2 (theta_j - prior_j)^2: a shot's worth of clips that
    vote for the prior. An expert without predictions, as a ridge at one shot, keeps its prior.
    """
    if fixed_theta is not None:
        return prior.clone() if fixed_theta == "prior" else torch.tensor(fixed_theta).double()
    from scipy.optimize import nnls  # takes a moment to import

    e = torch.stack(left_out).flatten(1)  # [experts, n * classes]
    products, sums = (e @ e.T).cpu(), (e @ target.flatten()).cpu()
    squares = products.diagonal()
    pull = target.shape[1] / target.shape[0] * squares
    known = squares > ROUNDING * target.square().sum().cpu()
    if not known.any():
        return prior.clone()
    system = (products + pull.diag())[known][:, known]
    factor = torch.linalg.cholesky(system)  # |factor' theta - right|^2 is the sum, up to a constant
    right = torch.linalg.solve_triangular(
        factor, (sums + pull * prior)[known][:, None], upper=False
    )
    theta = prior.clone()
    theta[known] = torch.from_numpy(nnls(factor.T.numpy(), right[:, 0].numpy())[0])
    return theta


def choose_temperature(logits, y) -> float:
    """The number of TEMPERATURES with the least cross-entropy of logits [n, c]; the first of equal
    ones.
    """
    losses = [F.cross_entropy(float(one) * logits, y).item() for one in TEMPERATURES]
    return float(TEMPERATURES[losses.index(min(losses))])


def as_prompts(weights, f, share: float, scale: float) -> tuple[torch.Tensor, float]:
    """PALM's z [c, d] and the logit of its lambda, which is the same for all classes.

    weights [c, d]; f [c, d], unit rows; share: the part of f in the weights. PALM's logits, scale
    times cosines, are then those of the weights plus a number for each clip, so softmax is equal.
    If the equal norms of `shift` exceed the scale, logits are smaller by that factor: the
    temperature drops and the order of classes stays.
    """
    prompts = weights + shift(weights, scale, f.mean(0))
    norms = prompts.norm(dim=1)
    if norms.max() > (1 + SAME_NORM) * norms.min():
        warnings.warn(
            f"{len(f)} prompts of equal norm do not exist in {f.shape[1]} dimensions: softmax is "
            "not exactly that of the solved weights",
            stacklevel=2,
        )
    radius = max(scale, float(norms.square().mean().sqrt()))
    prompts = prompts / radius
    weight = min(max(1 - share / radius, SMALLEST_LAMBDA), LARGEST_LAMBDA)
    logit = torch.tensor(math.log(weight / (1 - weight)), dtype=torch.float32)
    weight = float(torch.sigmoid(logit.double()))  # of the rounded logit, as PALM will have it
    return (prompts - (1 - weight) * f) / weight, float(logit)


def shift(weights, scale: float, along) -> torch.Tensor:
    """v [d] such that all rows of weights + v [c, d] have the same norm, the scale if possible.

    The vector to the circumcentre makes norms equal. A direction in which no class differs from
    another, `along` [d] as far as it does not, then lifts the norms to the scale. If the
    circumscribed sphere is larger than the scale, its radius is the norm.

    With c > d classes there is no such direction, and with c > d + 1 no circumcentre in general.
    Then norms are equal in the sense of least squares, and the lift is in the direction in which
    classes differ least. So softmax is not exactly that of the weights: on random texts and clips,
    99% of the decisions were the same with c slightly above d, and nine in ten with c = 2 d.
    """
    mean = weights.mean(0)
    apart = weights - mean  # [c, d]
    left, sizes, axes = torch.linalg.svd(apart, full_matrices=False)
    used = sizes > 1e-10 * sizes.max()
    left, sizes, span = left[:, used], sizes[used], axes[used]
    squares = apart.square().sum(1)  # [c]
    centre = span.T @ (left.T @ ((squares.mean() - squares) / 2) / sizes)
    is_full = len(span) == len(mean)
    direction = axes[-1] if is_full else outside(span, along)
    along_it = float(centre @ direction) if is_full else 0.0  # not a rounding of 0: its sign counts
    missing = max(0.0, scale**2 - float(squares.mean() + centre.square().sum()))
    lift = math.copysign(math.sqrt(along_it**2 + missing) - abs(along_it), along_it)
    return centre + lift * direction - mean


def outside(span, along) -> torch.Tensor:
    """A unit vector [d] orthogonal to the orthonormal rows of span [k, d], k < d.

    It is the part of `along` outside of the span, or that of a coordinate axis if there is none.
    """
    axis = torch.zeros_like(along)
    axis[span.square().sum(0).argmin()] = 1
    for vector in (along, axis):
        rest = vector - span.T @ (span @ vector)
        rest = rest - span.T @ (span @ rest)  # again, for rounding
        if rest.norm() > 1e-3:
            break
    return rest / rest.norm()
