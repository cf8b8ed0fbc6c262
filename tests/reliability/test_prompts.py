"""Damaged prompts and configs: one error of the kit that names the file, or the right result."""

import copy
import json
import random
import warnings

import pytest
import torch
from faults import attempt, count_tries, fuzz
from hypothesis import strategies as st
from reference import compact as make_compact

from palmkit import PALM, load_pengi
from palmkit.methods import METHODS
from palmkit.models import CheckpointError
from palmkit.protocols.prompt_files import PromptError, load_prompt, save_prompt

pytestmark = pytest.mark.slow

NAMES = ["bell", "dog", "rain"]
VALUES = {
    "nothing": None,
    "number": 0.5,
    "text": "ctx",
    "list": [0.5, 0.5, 0.5],
    "dict": {"ctx": torch.zeros(3)},
    "empty": torch.zeros(0),
    "scalar": torch.tensor(0.5),
    "whole numbers": torch.zeros(3, dtype=torch.int64),
    "flags": torch.zeros(3, dtype=torch.bool),
    "complex": torch.zeros(3, dtype=torch.complex64),
    "sparse": torch.eye(3).to_sparse(),
    "float8": torch.zeros(3).to(torch.float8_e4m3fn),
    "too many": torch.zeros(4, 4, 4),
}


def change(value, how: str):
    """A tensor with something wrong, or another value in its place."""
    if how in VALUES:
        return VALUES[how]
    if not isinstance(value, torch.Tensor):
        return float("nan")
    if how in ("complex of its shape", "whole numbers of its shape"):
        return value.to(torch.complex64 if "complex" in how else torch.int64)
    if how == "one short":
        return value.flatten()[:-1]
    if how == "turned":
        return value.reshape(*value.shape[::-1]) if value.ndim > 1 else value[..., None]
    value = value.clone().float()
    value.view(-1)[-1:] = {"NaN": float("nan"), "infinite": float("inf"), "-inf": -float("inf")}[
        how
    ]
    return value


HOW = [
    *VALUES,
    *("complex of its shape", "whole numbers of its shape", "one short", "turned"),
    *("NaN", "infinite", "-inf"),
]


class Prompts(dict):
    """The states of saved prompts by method."""

    def __repr__(self):  # hypothesis prints it
        return f"Prompts({', '.join(self)})"


@pytest.fixture(scope="module")
def prompt(tiny_pengi, tmp_path_factory):
    """A folder with a saved prompt of each method, and the states in them."""
    folder, states = tmp_path_factory.mktemp("prompts"), Prompts()
    for name in ("palm", "coop", "cocoop"):
        path = folder / f"{name}.pth"
        save_prompt(path, METHODS[name](tiny_pengi, NAMES, seed=1))
        states[name] = torch.load(path, weights_only=True)
    return folder, states


def check_load(path, method) -> None:
    """A PromptError that names the file and leaves the method alone, or finite numbers."""
    before = method.prompt_learner_state()
    try:
        load_prompt(path, method)
    except PromptError as error:
        assert str(path) in str(error) and "weights_only" not in str(error)
        after = method.prompt_learner_state()
        assert all(torch.equal(before[key], after[key]) for key in before)
        return
    assert all(value.isfinite().all() for value in method.prompt_learner_state().values())


@pytest.mark.slow
@fuzz(
    "prompts with wrong values",
    few=150,
    many=3000,
    name=st.sampled_from(["palm", "coop", "cocoop"]),
    part=st.sampled_from(["prompt_learner", "pengi_bn0_buffer"]),
    place=st.integers(0, 20),
    how=st.sampled_from(HOW),
    whole=st.booleans(),
)
def test_wrong_values(prompt, tiny_pengi, name, part, place, how, whole):
    folder, states = prompt
    state = copy.deepcopy(states[name])
    if whole and place == 0:
        state[part] = change(None, how)
    elif whole and place == 1:
        del state[part]
    else:
        keys = sorted(state[part])
        key = keys[place % len(keys)]
        state[part][key] = change(state[part][key], how)
        if whole:  # under another name
            state[part][place] = state[part].pop(key)
    path = folder / "changed.pth"
    torch.save(state, path)
    check_load(path, METHODS[name](tiny_pengi, NAMES, seed=2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes(prompt, tiny_pengi):
    """Bytes flipped, cut out or put in. What was saved comes back, or an error."""
    folder, states = prompt
    whole = (folder / "palm.pth").read_bytes()
    path = folder / "damaged.pth"
    method = PALM(tiny_pengi, NAMES, seed=1)
    expected = method.prompt_learner_state()
    for number in range(count_tries(200, 5000)):
        rng = random.Random(number)
        data, place = bytearray(whole), rng.randrange(len(whole))
        if number % 3 == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif number % 3 == 1:
            del data[place:]
        else:
            data[place : place + rng.randrange(50)] = rng.randbytes(rng.randrange(50))
        path.write_bytes(data)
        with attempt("damaged prompt files"):
            check_load(path, method)
            found = method.prompt_learner_state()
            assert all(torch.equal(found[key], expected[key]) for key in expected)


FIELDS = [
    *((None, name) for name in ("note", "precision", "projection_dropout", "audio", "text")),
    *(("audio", name) for name in ("hop_size", "log_amin", "bn_eps", "bn_momentum", "spec_size")),
    ("audio", "drop_path_rate"),
    *(("text", name) for name in ("num_attention_heads", "layer_norm_eps", "enc_text_len")),
    *((None, name) for name in ("d_proj", "logit_scale")),
    *(("audio", name) for name in ("depths", "embed_dim", "mlp_ratio", "sampling_rate")),
]
JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 100),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(0, 4), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_compact(tmp_path_factory.mktemp("checkpoint")).checkpoint


@fuzz(
    "config values of wrong types",
    few=30,
    many=2000,
    field=st.sampled_from(FIELDS),
    value=JSON_VALUES,
)
def test_config_values(checkpoint, field, value):
    path = checkpoint.parent / "config.json"
    before = path.read_text()
    config = json.loads(before)
    section = config.setdefault(field[0], {}) if field[0] else config
    section[field[1]] = value
    try:
        path.write_text(json.dumps(config))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_pengi(checkpoint, device="cpu")
    except CheckpointError as error:
        assert checkpoint.name in str(error) or str(path) in str(error)
    finally:
        path.write_text(before)
