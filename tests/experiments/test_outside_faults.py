"""Methods and models from outside with faults: each is refused in one sentence."""

import pytest
from outside import MODEL, few, make_home, read_rows  # noqa: F401

from palmkit.cli import main
from palmkit.methods import check_class
from palmkit.methods.base import Method

METHOD = """
import torch
from palmkit import Method


class Mine(Method):
    name, label = "mine", "Mine"

    def fit(self, features, labels, **settings):
        return []

    def forward(self, features):
        return features[:, : len(self.class_names)]
"""
LOGITS = "features[:, : len(self.class_names)]"
FAULTS = {
    "shape": (LOGITS, "features", "[clips, classes]"),
    "one axis": (LOGITS, "features[:, 0]", "[clips, classes]"),
    "tuple": (LOGITS, "(features, 1)", "returned tuple"),
    "array": (LOGITS, f"{LOGITS}.numpy()", "returned ndarray"),
    "whole": (LOGITS, f"{LOGITS}.long()", "returned torch.int64"),
    "fit": ("return []", "return 3", "or [] if it has no steps"),
    "error": ("return []", "return {}['no key']", "KeyError: 'no key' (line 10)"),
    "matmul": (LOGITS, "features @ torch.zeros(3, 2)", "(line 13)"),
    "no forward": ("def forward", "def go_forward", "define forward"),
    "settings": (", **settings", "", "fit must take (features, labels, **settings)"),
    "name": ('"mine"', '"my name"', "without spaces"),
    "number": ('"mine"', "7", "without spaces"),
    "all": ('"mine"', '"all"', "not 'all'"),
    "label": ('"Mine"', "''", "use a text of one line"),
    "color": ('"Mine"', '"Mine"\n    color = "red"', "use '#rrggbb'"),
    "init": (
        "    def fit",
        "    def __init__(self, model, class_names):\n        pass\n\n    def fit",
        "__init__ must take (model, class_names, seed=0)",
    ),
    "super": (
        "    def fit",
        "    def __init__(self, model, class_names, seed=0):\n"
        "        torch.nn.Module.__init__(self)\n\n    def fit",
        "super().__init__(model, class_names, seed)",
    ),
}


def run(home, capsys, *flags):
    """The exit status and the last line of stderr; only the row's run is kept."""
    status = main(["run", *few(home, *flags)])
    return status, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_method(home, capsys, fault):
    right, wrong, expected = FAULTS[fault]
    path = home / f"method_{fault.replace(' ', '_')}.py"
    path.write_text(METHOD.replace(right, wrong, 1))
    status, error = run(home, capsys, "--import", path, "--method", "mine")
    assert status == 1 and expected in error and error.startswith("palmkit: ")


@pytest.mark.slow
@pytest.mark.parametrize("returned", ["None", "[torch.tensor(1.0), 0.5]"])
def test_losses_are_numbers(home, capsys, returned):
    path = home / f"losses_{len(returned)}.py"
    path.write_text(METHOD.replace("return []", f"return {returned}"))
    assert run(home, capsys, "--import", path, "--method", "mine", "--name", "one")[0] == 0
    expected = [] if returned == "None" else [1.0, 0.5]
    assert read_rows(home, "one")["mine"]["losses"] == expected


@pytest.mark.slow
def test_logits_that_are_not_finite_have_no_score(home, capsys):
    path = home / "not_finite.py"
    path.write_text(METHOD.replace(LOGITS, f"{LOGITS} * float('nan')"))
    assert (
        run(home, capsys, "--import", path, "--method", "zeroshot", "mine", "--name", "one")[0] == 0
    )
    row = read_rows(home, "one")["mine"]
    assert "not finite" in row["diverged"] and row["accuracy"] == {"float": "nan"}


@pytest.mark.slow
@pytest.mark.parametrize("lambdas", ["[0.1, 0.2]", "torch.tensor(0.5)", "'text'"])
def test_an_attribute_that_is_called_lambdas(home, capsys, lambdas):
    path = home / f"lambdas_{len(lambdas)}.py"
    path.write_text(METHOD.replace('"Mine"\n', f'"Mine"\n    lambdas = {lambdas}\n'))
    assert run(home, capsys, "--import", path, "--method", "mine", "--name", "one")[0] == 0
    assert "lambdas" not in read_rows(home, "one")["mine"]


MODEL_FAULTS = {
    "dim": ("dim = 16_000, 1.0, 20", "dim = 16_000, 1.0, 0", "dim of the model 'toy' is 0"),
    "rate": ("16_000, 1.0", "'x', 1.0", "sample_rate of the model 'toy'"),
    "prompt": ("a sound of {}", "a sound", "use a text with {}"),
    "device": ('torch.device("cpu")', '"cpu"', "use a torch.device"),
    "dtype": ("torch.float32\n", "torch.float16\n", "torch.float32 or torch.float64"),
    "missing": ("def digest", "def hashed", "lacks digest"),
    "digest": ('"toy 1"', "str(__import__('time').perf_counter_ns())", "one and the same text"),
    "long": ("F.normalize(chunks", "3 * F.normalize(chunks", "encode_audio of the model 'toy'"),
    "nan": ("F.normalize(chunks", "float('nan') * F.normalize(chunks", "NaN or infinite"),
    "width": ("keepdim=True), dim=-1)", "keepdim=True), dim=-1)[:, :7]", "the shape ["),
    "text": ("stack(rows), dim=-1)", "stack(rows), dim=-1)[0]", "encode_text of the model 'toy'"),
    "raises": ("return F.normalize(chunks", "return {}['no key'](", "KeyError: 'no key' (line 14)"),
    "loader": ('{"toy": lambda device="auto": Toy()}', '{"toy": 3}', "MODELS must be a dict"),
    "list": ('{"toy": lambda device="auto": Toy()}', '["toy"]', "MODELS must be a dict"),
}


@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_a_faulty_model(home, capsys, fault):
    right, wrong, expected = MODEL_FAULTS[fault]
    assert right in MODEL
    path = home / f"model_{fault}.py"
    path.write_text(MODEL.replace(right, wrong, 1))
    status, error = run(home, capsys, "--import", path, "--checkpoint", "toy", "--method", "palm")
    assert status == 1 and expected in error and error.startswith("palmkit: ")


@pytest.mark.slow
def test_double_precision_of_a_model_is_rounded(home, capsys):
    path = home / "double.py"
    path.write_text(
        MODEL.replace("return F.normalize(chunks", "return F.normalize(chunks.double()", 1)
    )
    flags = ["--checkpoint", "toy", "--method", "zeroshot", "palm"]
    assert run(home, capsys, "--import", path, *flags)[0] == 0


def test_an_own_methods_class_is_checked_without_files():
    class Bad(Method):
        name = "bad/name"

    with pytest.raises(ValueError, match="without spaces and slashes"):
        check_class(Bad)
