"""Methods and models from outside of the package: files, entry points, worker processes."""

import os
import sys
from importlib import metadata

import joblib
import pytest
import torch
from joblib.externals.loky import get_reusable_executor

from palmkit import METHODS, evaluate, fit, get_method, load_model
from palmkit.methods import list_methods
from palmkit.models import list_models
from palmkit.plugins import VARIABLE, PluginError, load_plugins, plugin_digest, plugin_modules
from palmkit.protocols.prompt_files import PromptError, load_prompt, save_prompt

NAMES = ["dog", "rain", "bell"]
CENTROIDS = '''
"""Class centroids of the support set: no SGD."""

import torch
from torch import nn

from palmkit import Method
from palmkit.methods.base import normalize


class Centroids(Method):
    name = "centroids"
    label = "Centroids"

    def __init__(self, model, class_names, seed=0, weight=1.0):
        super().__init__(model, class_names, seed)
        self.weight = weight
        self.centroids = nn.Parameter(model.encode_text(self.class_names), requires_grad=False)

    def fit(self, features, labels, **settings):
        for label in labels.unique():
            self.centroids[label] += self.weight * features[labels == label].mean(0)
        return []

    def forward(self, audio_features):
        return self.logits(audio_features, normalize(self.centroids))
'''
TOY = '''
"""mini-PENGI under another name."""

from palmkit import load_pengi


def load(device="auto"):
    model = load_pengi("mini", device)
    model.name = "toy"
    return model


MODELS = {"toy": load}
'''


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """No test leaves a plugin behind."""
    monkeypatch.setenv(VARIABLE, "")
    yield
    for name in [name for name in sys.modules if name.startswith("palmkit.plugins.")]:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """Writes a plugin file; its path."""

    def write(text, name="my_method.py", folder="."):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def data(dim=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, dim, generator=generator), torch.arange(9) % 3


def test_a_method_of_a_file(write, tiny_pengi):
    path = write(CENTROIDS)
    load_plugins([path])
    cls = get_method("centroids")
    assert list(list_methods()) == [*METHODS, "centroids"] and "centroids" not in METHODS
    method = cls(tiny_pengi, NAMES)
    before = evaluate(method, *data())
    assert fit(method, *data(), epochs=3) == []
    assert evaluate(method, *data())["loss"] < before["loss"]
    assert (cls.label, cls.learns, cls.in_paper) == ("Centroids", True, False)
    assert cls.color.startswith("#") and cls.color not in {m.color for m in METHODS.values()}


def test_a_file_is_imported_once(write):
    path = write(CENTROIDS)
    load_plugins([path])
    cls = get_method("centroids")
    load_plugins([str(path)])
    assert get_method("centroids") is cls and os.environ[VARIABLE] == str(path)
    other = write(TOY, "toy.py", "more")
    load_plugins([other])
    assert os.environ[VARIABLE].split(os.pathsep) == [str(path), str(other)]
    assert [module.__file__ for module in plugin_modules()] == [str(path), str(other)]


def test_a_variable_is_enough(write, monkeypatch):
    """As in a worker process or a notebook's kernel, which gets the variable and no flag."""
    monkeypatch.setenv(VARIABLE, str(write(CENTROIDS)))
    assert get_method("centroids").__name__ == "Centroids"


def _train(method_class, seed):
    model = load_model("mini", "cpu")
    method = get_method("centroids")(model, NAMES, seed=seed)
    fit(method, *data(model.dim))
    return os.getpid(), method_class.__name__, method.centroids.sum().item()


@pytest.mark.slow
def test_in_worker_processes(write):
    """Classes travel there as well, pickled by reference.

    Workers that earlier tests left know nothing of the file: new ones are started.
    """
    get_reusable_executor().shutdown(wait=True)
    load_plugins([write(CENTROIDS)])
    cls = get_method("centroids")
    jobs = [joblib.delayed(_train)(cls, seed) for seed in (0, 1)]
    found = joblib.Parallel(2, backend="loky")(jobs)
    assert all(pid != os.getpid() for pid, _, _ in found)
    assert [result[1:] for result in found] == [_train(cls, 0)[1:]] * 2


def test_its_prompt_is_saved_and_loaded(write, tiny_pengi, tmp_path):
    load_plugins([write(CENTROIDS)])
    cls = get_method("centroids")
    method, fresh = cls(tiny_pengi, NAMES), cls(tiny_pengi, NAMES)
    fit(method, *data())
    save_prompt(tmp_path / "prompt.pth", method)
    assert not torch.equal(fresh.centroids, method.centroids)
    load_prompt(tmp_path / "prompt.pth", fresh)
    assert torch.equal(fresh.centroids, method.centroids)
    with pytest.raises(PromptError, match=r"missing \['ctx', 'lambdas'\], unknown \['centroids'\]"):
        load_prompt(tmp_path / "prompt.pth", METHODS["palm"](tiny_pengi, NAMES))


def test_a_name_that_is_taken(write):
    load_plugins([write(CENTROIDS.replace('"centroids"', '"palm"'))])
    with pytest.raises(PluginError, match="name 'palm' of Centroids is taken by PALM"):
        list_methods()
    assert get_method("palm") is METHODS["palm"]


def test_two_files_with_a_method_of_one_name(write):
    load_plugins([write(CENTROIDS), write(CENTROIDS, "other.py")])
    with pytest.raises(PluginError, match="other.py: the method name 'centroids'"):
        list_methods()


def test_an_unknown_name():
    with pytest.raises(ValueError, match="no method 'palmm'; there are zero.*did you mean 'palm'"):
        get_method("palmm")
    with pytest.raises(ValueError, match="there is no method 'xyz'; there are zeroshot, coop"):
        get_method("xyz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nif x\n", r"my_method.py cannot be imported: SyntaxError: .*\(line 2\)"),
        ("\n\n1 / 0\n", r"my_method.py cannot be imported: ZeroDivisionError: .*\(line 3\)"),
        ("import no_such_module\n", "ModuleNotFoundError.*no_such_module"),
    ],
)
def test_a_broken_file(text, message, write):
    with pytest.raises(PluginError, match=message) as caught:
        load_plugins([write(text)])
    assert "\n" not in str(caught.value) and os.environ[VARIABLE] == ""


def test_files_that_are_none(write, tmp_path):
    with pytest.raises(PluginError, match="there is no file .*none.py"):
        load_plugins([tmp_path / "none.py"])
    with pytest.raises(PluginError, match="must be a Python file"):
        load_plugins([write("", "my-method.txt")])
    load_plugins([write("x = 1\n", "empty.py")])
    with pytest.raises(PluginError, match="empty.py defines neither"):
        list_methods()


def test_two_files_of_one_name(write):
    load_plugins([write(CENTROIDS)])
    with pytest.raises(PluginError, match="same name.*rename one of them"):
        load_plugins([write(CENTROIDS, folder="more")])


def test_one_file_by_two_paths(write):
    file = write(CENTROIDS)
    (file.parent / "down").mkdir()
    assert len(set(load_plugins([file, file.parent / "down" / ".." / file.name]))) == 1


def test_a_subclass_of_a_method_is_another_method(write):
    text = "from palmkit import PALM\n\n\nclass Mine(PALM):\n    name = 'mine'\n"
    load_plugins([write(text)])
    cls = get_method("mine")
    assert (cls.label, cls.in_paper) == ("mine", False) and cls.color != METHODS["palm"].color
    assert get_method("palm").label == "PALM"


def test_a_model_of_a_file(write):
    load_plugins([write(TOY, "toy.py")])
    assert list(list_models()) == ["mini", "mini-clap", "pengi", "toy"]
    assert load_model("toy", "cpu").name == "toy"
    with pytest.raises(FileNotFoundError, match="did you mean 'toy'"):
        load_model("toyy")
    load_plugins([write(TOY.replace('"toy": load', '"mini": load'), "again.py")])
    with pytest.raises(PluginError, match="again.py: the model name 'mini' is taken"):
        load_model("mini")


def test_a_model_that_lacks_members(write):
    text = "class Bare:\n    dim = 3\n\n\nMODELS = {'bare': lambda device: Bare()}\n"
    load_plugins([write(text)])
    with pytest.raises(PluginError, match="'bare' lacks name, sample_rate, .*encode_audio"):
        load_model("bare")


def test_entry_points(write, monkeypatch):
    """An installed package names its class or its loader."""
    load_plugins([write(CENTROIDS), write(TOY, "toy.py")])
    monkeypatch.setenv(VARIABLE, "")
    points = {
        "palmkit.methods": ["palmkit.plugins.my_method:Centroids", "palmkit.no_such:Thing"],
        "palmkit.models": ["palmkit.plugins.toy:load"],
    }
    monkeypatch.setattr(
        "palmkit.plugins.find_entry_points",
        lambda group, path: [metadata.EntryPoint("other", value, group) for value in points[group]],
    )
    with pytest.warns(UserWarning, match="entry point palmkit.no_such:Thing .* is broken"):
        assert get_method("centroids").label == "Centroids"
    assert load_model("other", "cpu").name == "toy"


def test_digest_of_the_source(write):
    path = write(CENTROIDS)
    load_plugins([path])
    one = plugin_digest(get_method("centroids"))
    path.write_text(CENTROIDS + "\n# changed\n")
    assert len(one) == 64 and plugin_digest(get_method("centroids")) != one
    assert plugin_digest(METHODS["palm"]) == ""
