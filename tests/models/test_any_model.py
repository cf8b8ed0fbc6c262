"""What is PENGI's stays PENGI's: rates, channels, prompts and published numbers of other models."""

import json
import logging
import math
import sys
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from toy_models import BidirectionalModel, WordModel

from palmkit import check_dataset, embed, load_model
from palmkit.audio import clip_settings, read_clip, read_crop
from palmkit.channels import channels_key, combine_channels
from palmkit.datasets.import_folder import import_dataset
from palmkit.embeddings import provenance
from palmkit.experiments.config import choose
from palmkit.experiments.model_defaults import rate_source, warn_of_rates, with_model_defaults
from palmkit.experiments.one_trial import dropout_rates
from palmkit.experiments.rows import package_versions
from palmkit.experiments.trials import Trial
from palmkit.models.about import (
    UNKNOWN,
    add_note,
    checkpoint_config,
    default_settings,
    describe,
    has_pengi_design,
    is_pengi,
    not_pengi_note,
)
from palmkit.models.check import check_model
from palmkit.results import claim_table
from palmkit.results.comparison import compare, compare_with_paper
from palmkit.results.settings import split_settings


def stereo(path, seconds: float, rate=16_000):
    rng = np.random.default_rng(0)
    data = rng.uniform(-0.5, 0.5, (round(seconds * rate), 2)).astype("float32")
    soundfile.write(path, data, rate, subtype="FLOAT")
    return data


class TestChannels:
    def test_mixed_is_the_mean_and_joined_is_one_after_the_other(self):
        waveform = torch.arange(6.0).reshape(2, 3)
        assert combine_channels(waveform).tolist() == [1.5, 2.5, 3.5]
        assert combine_channels(waveform, "join").tolist() == [0, 1, 2, 3, 4, 5]
        with pytest.raises(ValueError, match="channels='left': use mix, join"):
            combine_channels(waveform, "left")

    def test_a_model_that_does_not_say_gets_the_mean(self, tmp_path):
        data = stereo(tmp_path / "a.wav", 1.0)
        model = WordModel()
        waveform = read_clip(tmp_path / "a.wav", **clip_settings(model))
        assert len(waveform) == round(model.sample_rate * model.clip_seconds)
        assert np.allclose(waveform[:16_000], data.mean(1), atol=1e-6)
        model.channels = "join"
        waveform = read_clip(tmp_path / "a.wav", **clip_settings(model))
        assert np.allclose(waveform[:32_000], data.T.ravel(), atol=1e-6)

    def test_embeddings_follow_and_are_kept_apart(self, tmp_path):
        stereo(tmp_path / "a.wav", 1.0)
        model, cache = WordModel(), tmp_path / "cache"
        mixed = embed(model, [tmp_path / "a.wav"], cache=cache).features
        model.channels = "join"
        joined = embed(model, [tmp_path / "a.wav"], cache=cache).features
        by_hand = model.encode_audio(read_clip(tmp_path / "a.wav", **clip_settings(model))[None])
        assert torch.equal(joined, by_hand) and not torch.equal(mixed, joined)
        assert channels_key(model) == {}  # of older caches, which had no other
        assert "channels" not in provenance(load_model("mini", "cpu"), "random", 0)

    @pytest.mark.parametrize("rate", [16_000, 22_050])
    @pytest.mark.parametrize("channels", ["mix", "join"])
    def test_of_a_long_file_only_the_crop_is_read_with_the_same_result(
        self, channels, rate, tmp_path, monkeypatch
    ):
        stereo(tmp_path / "long.wav", 9.0, 22_050)
        crops = {}
        for limit in (60, 1):
            monkeypatch.setattr("palmkit.audio.LONG_SECONDS", limit)
            with open(tmp_path / "long.wav", "rb") as file:
                crops[limit] = read_crop(file, "long", rate, 2 * rate, 5000, channels=channels)
        assert torch.equal(crops[60][0], crops[1][0]) and crops[60][1] == crops[1][1] == 5000


class TestDefaults:
    def test_what_a_model_states_is_used_unless_the_user_gave_it(self, caplog):
        model = WordModel()
        model.defaults = {"lr": 0.4, "epochs": 20}
        with caplog.at_level(logging.INFO):
            found = with_model_defaults(choose({"epochs": 7}), model).values
        assert (found["lr"], found["epochs"], found["momentum"]) == (0.4, 7, 0.9)
        assert "lr=0.4: the default of " in caplog.text and "epochs" not in caplog.text

    @pytest.mark.parametrize(
        "stated, message", [({"lr": -1}, "lr, a default of the model"), ({"shots": 4}, "'shots'")]
    )
    def test_what_is_no_setting_is_refused(self, stated, message):
        model = WordModel()
        model.defaults = stated
        with pytest.raises(ValueError, match=message):
            with_model_defaults(choose({}), model)

    def test_pengis_rate_on_a_model_that_states_none_is_said(self, caplog):
        model = WordModel()
        trials = [Trial(method, "x") for method in ("zeroshot", "palm", "kernel-ridge", "palm")]
        assert [rate_source(trial, model) for trial in trials[:3]] == ["", "published", ""]
        assert rate_source(Trial("palm", "x", lr=0.1), model) == "given"
        warn_of_rates(trials, model)
        (record,) = caplog.records
        assert "SGD uses PENGI's (palm): lr=0.05" in record.getMessage()
        caplog.clear()
        model.defaults = {"lr": 0.05}
        warn_of_rates(trials, model)
        assert not caplog.records and rate_source(trials[1], model) == "model"

    def test_pengi_states_the_published_ones(self, tiny_pengi, caplog):
        warn_of_rates([Trial("palm", "x")], tiny_pengi)
        published = {
            name: getattr(Trial("palm", "x"), name) for name in default_settings(tiny_pengi)
        }
        assert default_settings(tiny_pengi) == published and not caplog.records


class TestIdentity:
    def test_facts_of_models(self):
        model = WordModel()
        assert {*describe(model).values()} == {UNKNOWN}
        model.about = {"licence": "CC0", "training data": None}
        assert describe(model)["licence"] == "CC0" and describe(model)["revision"] == UNKNOWN
        mini = describe(load_model("mini", "cpu"))
        assert mini["licence"] == "MIT" and mini["revision"].startswith("sha256 b515b31e")

    def test_a_note_is_added_and_none_is_lost(self):
        model = WordModel()
        model.note = "a toy"
        for _ in range(2):
            add_note(model, "mine")
        assert model.note == "a toy; mine"
        add_note(model, "")
        assert model.note == "a toy; mine"
        mini = load_model("mini", "cpu")
        given = mini.note
        add_note(mini, "mine")
        assert mini.note == f"{given}; mine"

    def test_only_pengi_of_pengis_size_is_pengi(self, tiny_pengi):
        assert has_pengi_design(tiny_pengi) and not is_pengi(tiny_pengi)
        for model in (WordModel(), BidirectionalModel()):
            model.note = ""
            assert not has_pengi_design(model) and "is not PENGI" in not_pengi_note(model)
            model.note = "the user's"
            assert "is not PENGI" in not_pengi_note(model)


def rows_of(model_note: str) -> pd.DataFrame:
    common = dict(fold=None, seed=0, accuracy=0.5, f1=0.5, precision=0.5, recall=0.5, loss=1.0)
    common |= dict(note="", n_test=105, shots=16, model_note=model_note)
    return pd.DataFrame(
        [common | {"dataset": "SESA", "method": name} for name in ("zeroshot", "palm")]
    )


@pytest.mark.slow
def test_results_of_another_model_never_stand_beside_the_papers():
    ours = compare(rows_of(""))
    cells = ours[ours["dataset"] == "SESA"]
    assert cells["paper"].notna().all() and cells["difference"].notna().all()
    for table in (
        compare(rows_of("x is not PENGI")),
        compare_with_paper(rows_of("x is not PENGI")),
    ):
        assert len(table) and table[["paper", "difference"]].isna().all().all()
    judged = compare_with_paper(rows_of("x is not PENGI"))
    assert (judged["verdict"] == "not comparable").all() and judged["paper_seeds"].isna().all()


def test_a_page_shows_the_papers_claims_beside_pengis_design_only(tiny_pengi):
    claims = {"accuracy": (0.7, 0.5, "1 dataset")}
    assert [*claim_table(claims)] == ["paper", "ours", "difference", "n"]
    assert [*claim_table(claims, model=tiny_pengi)] == ["paper", "ours", "difference", "n"]
    assert [*claim_table(claims, model=WordModel())] == ["ours", "n"]


def test_the_papers_number_of_datasets_goes_with_its_column(tiny_pengi):
    claims = {
        "accuracy": (0.7, 0.5, "11 and 2 datasets, 3 and 1 seeds"),
        "width": (512, 24, "text width 512 and 24"),
        "time": (3.0, None, "22 runs"),
    }
    whole = claim_table(claims, model=tiny_pengi)["n"].tolist()
    assert whole == ["11 and 2 datasets, 3 and 1 seeds", "text width 512 and 24", "22 runs"]
    other = claim_table(claims, model=WordModel())["n"]
    assert other.to_dict() == {"accuracy": "2 datasets, 1 seeds", "width": "text width 24"}


def test_a_config_of_another_kind_is_not_read():
    """A wrapper of a library's model often has its `config`: an object, or a dict of its own."""
    for config in (object(), None, {"audio": None}, {"projection_dropout": 0.1}):
        model = WordModel()
        model.config = config
        assert "is not PENGI" in not_pengi_note(model)
        assert dropout_rates(checkpoint_config(model)) == {}


def test_rows_name_the_libraries_of_a_clap_model(monkeypatch):
    assert {"torch", "python"} <= {*package_versions()}
    for name in ("transformers", "tokenizers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert "transformers" not in package_versions()
    monkeypatch.setitem(sys.modules, "transformers", object())
    assert package_versions()["transformers"] == version("transformers")
    assert "tokenizers" not in package_versions()


def test_a_dataset_is_checked_for_a_model(tmp_path):
    """Its length and rate, and the class names that its text encoder does not take."""

    class ShortText(WordModel):
        def encode_text(self, prompts):
            if any(len(prompt) > 30 for prompt in prompts):
                raise ValueError("it takes 30 letters")
            return super().encode_text(prompts)

    root = tmp_path / "two"
    for name in ("dog", "a very long name of a very rare sound"):
        for n in range(6):
            (root / name).mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(n + 10 * len(name)).uniform(-0.5, 0.5, 6 * 8_000)
            soundfile.write(root / name / f"{n}.wav", noise, 8_000)
    folder = import_dataset(root, folds=1)
    findings = check_dataset(folder, shots=2, model=ShortText()).findings["what"].str.cat(sep=" | ")
    assert "does not take 1 class names: a very long name" in findings
    assert "it takes 30 letters" in findings and "longer than 4 s" in findings
    pengi = check_dataset(folder, shots=2).findings["what"].str.cat(sep=" | ")
    assert "does not take" not in pengi and "longer than" not in pengi


def test_a_check_says_what_the_model_does_with_channels(tmp_path):
    """Stereo files of 3 s are 6 s long for a model that joins channels, and the model takes 4 s."""
    for name in ("cat", "dog"):
        for n in range(4):
            (tmp_path / "two" / name).mkdir(parents=True, exist_ok=True)
            stereo(tmp_path / "two" / name / f"{n}.wav", 3.0 + 0.1 * n)
    folder = import_dataset(tmp_path / "two", folds=1)
    model = WordModel()
    mixed = check_dataset(folder, shots=2, model=model).findings
    assert "Nothing: the model takes their mean" in [*mixed["advice"]]
    assert not mixed["what"].str.contains("longer than").any()
    assert not mixed.to_string().count("one after the other")
    model.channels = "join"
    joined = check_dataset(folder, shots=2, model=model).findings
    assert joined["what"].str.contains("longer than 4 s .channels one after the other").any()
    assert joined["advice"].str.contains("channels are put one after the other").any()


def test_notebooks_about_pengis_encoders_are_left_out(tmp_path, caplog, tiny_pengi):
    from palmkit.notebooks import fitting_numbers, list_notebooks

    for name, tags in (("01_a", ["parameters"]), ("02_b", ["parameters", "pengi-only"])):
        cell = dict(cell_type="code", source="", metadata={"tags": tags}, outputs=[], id=name[:2])
        book = dict(cells=[cell | {"execution_count": None}], metadata={}, nbformat=4)
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(book | {"nbformat_minor": 5}))
    books = list_notebooks(tmp_path)
    assert fitting_numbers(books, tiny_pengi) == [1, 2] and not caplog.records
    assert fitting_numbers(books, WordModel()) == [1] and "02_b.ipynb: left out" in caplog.text


WRONG = {
    "padding": ["zeros", None],
    "channels": ["left"],
    "defaults": [3, "lr"],
    "about": ["MIT"],
    "prompt": ["{} and {}", "a {name} {}", "{ {}", "{0} {}"],
    "logit_scale": [math.inf],
    "clip_seconds": [math.inf],
}


@pytest.mark.parametrize("member", WRONG)
def test_a_member_that_later_code_cannot_use_is_an_error_at_loading(member):
    check_model(WordModel())
    for value in WRONG[member]:
        model = WordModel()
        setattr(model, member, value)
        with pytest.raises(ValueError, match=f"^{member} of the model .* is .*: use "):
            check_model(model)


def test_optional_members_may_be_none_or_right():
    model = WordModel()
    model.padding, model.channels, model.defaults, model.about = "pad", "join", None, {"x": "y"}
    check_model(model)


def test_a_table_names_the_model_beside_its_digest():
    rows = pd.concat([rows_of(""), rows_of("")], ignore_index=True)
    rows = rows.assign(weights=["a" * 64] * 2 + ["b" * 64] * 2, model=["one"] * 2 + ["two"] * 2)
    labels = [label for label, _ in split_settings(rows.assign(protocol="frozen"))]
    assert labels == ["weights=aaaaaaaaaaaa (one)", "weights=bbbbbbbbbbbb (two)"]
    labels = [label for label, _ in split_settings(rows.drop(columns="model"))]
    assert labels == ["weights=aaaaaaaaaaaa", "weights=bbbbbbbbbbbb"]
