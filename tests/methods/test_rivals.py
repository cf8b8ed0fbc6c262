"""What holds for all methods on frozen features: supports of any shape, states, options, trials."""

import functools
import inspect

import pandas as pd
import pytest
import torch
from outside import few, make_home, read_rows  # noqa: F401
from rival_data import NAMES, model_for, table
from toy_models import BidirectionalModel

from palmkit import METHODS, evaluate, fit, predict
from palmkit.cli import main
from palmkit.data import Dataset
from palmkit.embeddings import Embeddings
from palmkit.experiments.one_trial import run_trial
from palmkit.experiments.rows import load_method, trial_key
from palmkit.experiments.timing import Clock
from palmkit.experiments.trials import METHOD_NAMES, PAPER_METHODS, Trial, expand_methods
from palmkit.methods import RIVALS, check_class
from palmkit.models import ModelPair
from palmkit.protocols.prompt_files import PromptError, load_prompt, save_prompt

pytestmark = pytest.mark.usefixtures("one_thread")
RIVAL_NAMES = [cls.name for cls in RIVALS]
TEST = table([6, 6, 6, 6], seed=7)
# tests/methods/test_aspl.py has the others.
ON_EMBEDDINGS = [name for name, cls in METHODS.items() if not cls.tunes_audio]
BY_CLIP = ["tip-adapter", "tip-adapter-f", "treff", "treff-f", "kernel-ridge"]
BY_CLIP += ["product-kernel-ridge"]
# Those whose fit is the same with every seed, given the support set.
DETERMINISTIC = [name for name in RIVAL_NAMES if name not in ("malp", "cross-modal-probe")]
fast = {
    "cross-modal-probe": {"train_steps": 50},
    "zs-lp": {"train_epochs": 20},
    "clap-probe": {"train_epochs": 20},
}


@pytest.fixture(params=RIVAL_NAMES)
def name(request):
    return request.param


def make(name, seed=0, **options):
    return METHODS[name](model_for(name), NAMES, seed=seed, **fast.get(name, {}), **options)


def test_the_classes(name):
    cls = METHODS[name]
    check_class(cls)
    assert cls.learns and not cls.in_paper and cls.own_fit == (name != "malp")
    assert "arXiv" in cls.__doc__ or name in ("malp", "text-prototypes", "centred-mix")


def test_no_name_label_or_colour_is_twice():
    classes = METHODS.values()
    for attribute in ("name", "label", "color"):
        values = [getattr(cls, attribute) for cls in classes]
        assert len({*values}) == len(values), attribute


def test_all_stands_for_the_paper_s_methods_only():
    assert expand_methods("all") == [*PAPER_METHODS]
    assert not {*RIVAL_NAMES} & {*PAPER_METHODS}
    assert [*METHOD_NAMES] == [*METHODS] and {*RIVAL_NAMES} < {*METHODS}


@pytest.mark.parametrize("counts", [[4, 4, 4, 4], [1, 6, 2, 3], [3, 0, 1, 2], [0, 0, 5, 0]])
def test_supports_of_any_shape(name, counts):
    """Uneven classes, and classes without clips: finite logits of the right shape."""
    method = make(name)
    losses = fit(method, *table(counts))
    logits = predict(method, TEST[0])
    assert logits.isfinite().all() and logits.shape == (24, 4)
    assert torch.tensor(losses).isfinite().all()


@pytest.mark.parametrize("counts", [[5, 5, 5, 5], [2, 6, 3, 3]])
def test_they_learn(name, counts):
    method, support = METHODS[name](model_for(name), NAMES), table(counts)
    before = evaluate(method, *support), evaluate(method, *TEST)
    fit(method, *support)
    after = evaluate(method, *support), evaluate(method, *TEST)
    assert after[0]["loss"] < before[0]["loss"]
    assert after[1]["accuracy"] > before[1]["accuracy"]


def test_a_class_without_clips_is_never_chosen_by_the_linear_probe():
    method = make("linear-probe", C=0.1)
    fit(method, *table([3, 0, 3, 3]))
    assert (predict(method, TEST[0]).argmin(1) == 1).all()
    assert (predict(method, -TEST[0]).argmin(1) == 1).all()


def test_the_order_of_clips_changes_nothing(name):
    """Of deterministic methods: only rounding."""
    if name not in DETERMINISTIC:
        pytest.skip("it shuffles the clips")
    features, labels = table([3, 5, 2, 4])
    turned = torch.arange(len(labels)).flip(0)
    methods = [make(name), make(name)]
    fit(methods[0], features, labels)
    fit(methods[1], features[turned], labels[turned])
    results = [predict(method, TEST[0]) for method in methods]
    torch.testing.assert_close(*results, rtol=0, atol=1e-4)


def test_determinism_by_seed(name):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed + 17)  # the global generator does not matter
        method = make(name, seed=seed)
        losses = fit(method, *table([3, 5, 2, 4]), seed=seed, epochs=3)
        states.append((losses, predict(method, TEST[0])))
    assert states[0][0] == states[1][0] and torch.equal(states[0][1], states[1][1])
    assert torch.equal(states[0][1], states[2][1]) == (name in DETERMINISTIC)


def test_fitting_twice_is_fitting_once(name):
    """A second fit forgets the first one; MALP goes on, as PALM does."""
    method, fresh = make(name), make(name)
    fit(method, *table([4, 4, 4, 4], seed=1))
    for one in (method, fresh):
        fit(one, *table([3, 5, 2, 4]))
    assert torch.equal(predict(method, TEST[0]), predict(fresh, TEST[0])) == (name != "malp")


def test_features_of_several_epochs_are_averaged(name):
    if name == "malp":
        pytest.skip("SGD takes another table in each epoch")
    features, labels = table([3, 5, 2, 4])
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    methods = [make(name), make(name)]
    fit(methods[0], torch.stack([features + noise, features - noise]), labels, epochs=2)
    fit(methods[1], features, labels)
    results = [predict(method, TEST[0]) for method in methods]
    torch.testing.assert_close(*results, rtol=0, atol=1e-4)


def test_a_fit_changes_no_text(name):
    method = make(name)
    if "text" not in dict(method.named_buffers()):
        pytest.skip("it has no text")
    before = method.text.clone()
    fit(method, *table([3, 5, 2, 4]))
    assert torch.equal(method.text, before)


# States.


def test_state_round_trip(name, tmp_path):
    """By a state and by a file; keys and dual coefficients have as many rows as clips."""
    method = make(name)
    fit(method, *table([3, 5, 2, 4]))
    expected = predict(method, TEST[0])
    for n, start in enumerate((None, table([1, 1, 1, 1]))):
        fresh = make(name, seed=1)
        if start:  # it has another number of clips
            fit(fresh, *start)
        fresh.load_prompt_learner(method.prompt_learner_state())
        assert torch.equal(predict(fresh, TEST[0]), expected)
        save_prompt(tmp_path / f"{n}.pth", fresh)
        again = make(name, seed=2)
        load_prompt(tmp_path / f"{n}.pth", again)
        assert torch.equal(predict(again, TEST[0]), expected)


@pytest.mark.parametrize("name", BY_CLIP)
def test_states_that_do_not_fit(name, tmp_path):
    method = make(name)
    fit(method, *table([3, 5, 2, 4]))
    state = method.prompt_learner_state()
    first, second = method.by_clip
    wrong = [
        ({first: state[first][:-1]}, rf"{second} is \[14, 4\], expected \[13, 4\]"),
        ({second: state[second][:, :3]}, r"\[14, 3\], expected \[14, 4\]"),  # of other classes
        ({first: state[first][0]}, "expected"),
        ({first: torch.tensor(1.0)}, "expected"),
    ]
    for change, message in wrong:
        fresh = make(name)
        with pytest.raises(ValueError, match=f"a state of another {type(method).__name__}.*"):
            fresh.load_prompt_learner(state | change)
        assert message and len(fresh.prompt_learner_state()[first]) == 0
        torch.save({"prompt_learner": state | change, "pengi_bn0_buffer": {}}, tmp_path / "a.pth")
        with pytest.raises(PromptError, match=message):
            load_prompt(tmp_path / "a.pth", fresh)


def test_parameters_alone_are_the_state(name):
    """Nothing that is fitted hides in a buffer or an attribute."""
    method = make(name)
    before = {key: value.clone() for key, value in method.named_buffers()}
    fit(method, *table([3, 5, 2, 4]))
    after = dict(method.named_buffers())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert {*method.prompt_learner_state()} == {key for key, _ in method.named_parameters()}


# Options.


def token_model(name):
    """A model for any method on embeddings: with tokens, or two of it."""
    one = BidirectionalModel()
    return ModelPair(one, one) if METHODS[name].needs_pair else one


def supports(width):
    """A support set, and features of test clips."""
    return table([3, 5, 2, 4], width), table([6, 6, 6, 6], width, seed=7)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_EMBEDDINGS)
def test_scale(name):
    """None is the model's; a number replaces it, and is checked."""
    model = token_model(name)
    plain, same, other = (METHODS[name](model, NAMES, scale=s) for s in (None, 20, 5.0))
    assert plain.scale is None and plain.logit_scale in (20, 1)
    for scale in (0, -1, "10", True, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale=.*use a number over 0, or None"):
            METHODS[name](model, NAMES, scale=scale)
    support, features = supports(model.dim)
    results = []
    for method in (plain, same, other):
        fit(method, *support, epochs=2)
        results.append(predict(method, features))
    assert torch.equal(results[0], results[1]) == (plain.logit_scale == 20)
    assert not torch.allclose(results[0], results[2], atol=1e-3)


WRONG = {
    "C": (0, -1.0, "1", True, None, float("inf")),
    "lam": (-0.1, "x", True, float("nan")),
    "prior_shots": (0, None),
    "alpha": (-1, "x", None),
    "beta": (-1, "x"),
    "beta2": (-1, "x"),
    "kernel": ("other", None),
    "prior": ("both of them", None),
    "form": ("other", None),
    "join": ("other", 3),
    "text_norm": (0, None),
    "strength": (-1, None),
    "weight_decay": (-1, None),
    "train_epochs": (-1, 1.5, True, "3"),
    "train_steps": (-1, 2.5, None),
    "train_lr": (0, None, "x"),
    "train_batch": (0, 1.5, None),
    "prompt": ("no place for a name", 3),
    "gamma": (0, "x"),
    "neighbours": (-1, 1.5, None),
    "temper": (0, None),
    "steps": (0, 2.5, None),
    "inner": (0, "3"),
}


def test_wrong_options(name):
    """Each says which option it is, and what to use."""
    options = [*inspect.signature(METHODS[name]).parameters][3:]
    assert options[-1] == "scale"
    for option in options[:-1]:
        for value in WRONG[option]:
            with pytest.raises(ValueError, match=f"^{option}=.*: use "):
                make_bare(name, option, value)


def make_bare(name, option, value):
    return METHODS[name](model_for(name), NAMES, **{option: value})


def test_options_are_options_of_a_trial(name):
    for option in [*inspect.signature(METHODS[name]).parameters][3:]:
        assert Trial(name, "x", options={option: 1}).options == {option: 1}
    with pytest.raises(ValueError, match=f"there is no {name} option 'lambda_'"):
        Trial(name, "x", options={"lambda_": 1})


@pytest.mark.slow
def test_every_option_changes_the_result(name):
    """No option is taken and then forgotten."""
    other = {
        **{"C": 0.01, "lam": 0.9, "prior_shots": 40, "alpha": 0.2, "beta": 9.0, "text_norm": 2.0},
        **{"strength": 30.0, "weight_decay": 5.0, "train_epochs": 3, "train_steps": 7},
        **{"train_lr": 0.02, "train_batch": 6, "prompt": "{} it is", "scale": 3.0},
        **{"gamma": 9.0, "neighbours": 1, "temper": 1.0, "steps": 2, "inner": 1},
        **{"form": "ridge" if "kernel-ridge" in name else "map", "join": "added"},
        **{"beta2": 9.0, "kernel": "second", "prior": "both"},
    }

    def result(**options):
        method = METHODS[name](model_for(name), NAMES, **options)
        losses = fit(method, *table([3, 5, 2, 4]), epochs=3)
        return predict(method, TEST[0]), losses

    if name == "transclip":  # a few rounds: once they have converged, one more changes nothing
        result = functools.partial(result, steps=3, temper=5.0)
    plain, _ = result()
    for option in [*inspect.signature(METHODS[name]).parameters][3:]:
        assert not torch.allclose(result(**{option: other[option]})[0], plain, atol=1e-6), option


# Trials.


def dataset_of(labels):
    """A dataset of a name only: `run_trial` reads embeddings, and no file."""
    frames = [pd.DataFrame({"path": [f"{n}.wav" for n in range(len(one))]}) for one in labels]
    return Dataset("tiny", "tiny", 1, NAMES, *frames)


def embedded(features, labels):
    paths = [f"tiny/{n}.wav" for n in range(len(labels))]
    return Embeddings(
        torch.nn.functional.normalize(features, dim=-1), labels, paths, [0] * len(paths)
    )


SCORES = ("accuracy", "f1", "precision", "recall", "loss")


TRIALS = [(name, "published") for name in ON_EMBEDDINGS]
TRIALS += [(name, "support") for name, cls in METHODS.items() if cls.choices]


@pytest.mark.parametrize("name, regime", TRIALS)
def test_labels_of_test_clips_change_the_score_only(name, regime, monkeypatch):
    """The result of a trial with the right test labels, and with permuted ones."""
    model = token_model(name)
    support, (features, labels) = table([3, 5, 2, 4], model.dim), table([6] * 4, model.dim, seed=7)
    monkeypatch.setattr(Dataset, "relative", lambda self, path: str(path))
    data = dataset_of((support[1], labels))
    trial = Trial(name, "tiny", 1, epochs=3, regime=regime, options=fast.get(name, {}))
    rows, tensors = [], []
    for given in (labels, labels[torch.randperm(len(labels), generator=seeded(3))]):
        train = embedded(*support) if METHODS[name].learns else None
        row, kept = run_trial(trial, model, data, embedded(features, given), train)
        rows.append({k: v for k, v in row.items() if k not in ("seconds", "written")})
        tensors.append(kept)
    assert ("chosen" in rows[0]) == (regime == "support")
    assert tensors[0].keys() == tensors[1].keys()
    changed = {key for key in tensors[0] if not torch.equal(tensors[0][key], tensors[1][key])}
    assert changed == {"labels"}
    assert {key for key in rows[0] if rows[0][key] != rows[1][key]} <= {*SCORES}
    assert rows[0]["loss"] != rows[1]["loss"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", ["toy", "toy+toy", "toy+audio:toy"])
def test_a_run_of_all(checkpoint, home, capsys):
    """On the command line: rows, a table with their labels, and the methods of rows again."""
    from palmkit.models import load_model

    names = [name for name in RIVAL_NAMES if checkpoint != "toy" or not METHODS[name].needs_pair]
    command = ["run", "--import", str(home / "toy_model.py"), "--checkpoint", checkpoint]
    assert main([*command, "--method", *names, *few(home, "--name", "a")]) == 0
    rows = read_rows(home, "a")
    assert {*rows} == {*names} and not any(row["diverged"] for row in rows.values())
    assert main(["table", "a"]) == 0
    shown = capsys.readouterr().out
    assert all(METHODS[name].label in shown for name in names)
    assert ("encoders=two" in shown) == (checkpoint != "toy")
    assert "transductive=yes" in shown
    model = load_model(checkpoint)
    features = torch.randn(5, model.dim, generator=seeded(0))
    for row in rows.values():
        method = load_method(row, home / "runs" / "a", model)
        assert predict(method, features).isfinite().all()
        assert row["trainable"] == sum(one.numel() for one in method.parameters())


def test_a_scale_is_in_the_key_of_a_row():
    plain, scaled = Trial("palm", "x"), Trial("palm", "x", options={"scale": 50})
    assert trial_key(plain, "data", "model") != trial_key(scaled, "data", "model")


def test_a_fit_of_its_own_is_timed_as_a_whole():
    """A trial's epochs change the estimate of PALM and MALP, and not that of the others."""
    model = BidirectionalModel()
    for name in ("palm", "malp", "prototypes", "taskres"):
        clock = Clock(model)
        few, many = (
            clock.trial(Trial(name, "x", epochs=epochs, options={}), NAMES, 40, 0)
            for epochs in (1, 1001)
        )
        assert (few == many) == METHODS[name].own_fit
        assert len(clock.known) == 1  # measured once
