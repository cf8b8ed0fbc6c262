"""Predictions for clips: what a row or a prompt has learned, on clips of one's own."""

import io
import json
import shutil
import zipfile

import pandas as pd
import pytest
import torch
from notebook_cells import make_tiny_dataset

import palmkit
from palmkit.cli import main
from palmkit.experiments import make_grid, run_trials
from palmkit.experiments.rows import load_method, load_tensors, parse_row
from palmkit.protocols.prompt_files import PromptError, save_prompt
from palmkit.results.prediction import PredictionError, find_clips, load_predictor

CLASSES = ["dog", "rain", "café & <b>"]
KINDS = {
    "zeroshot": {},
    "palm": {"options": {"fixed_lambda": 0.25}},
    "coop": {"options": {"context_length": 4}},
    "cocoop": {},
    "palm-released": {"protocol": "released", "stochastic": ["bn0", "crops"]},
    "transclip": {},
    "palm-names": {"options": {"names": {"dog": "hound"}}},
}


@pytest.fixture(scope="module")
def model():
    return palmkit.load_model("mini", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """A dataset, and a run with a trial of each kind."""
    folder = tmp_path_factory.mktemp("prediction")
    dataset = make_tiny_dataset(folder / "tiny", CLASSES)
    for kind, settings in KINDS.items():
        trials = make_grid(
            [kind.partition("-")[0]], [dataset], [1], [3], shots=1, epochs=1, **settings
        )
        run_trials(trials, model, folder / kind)
    return folder


def find_row(folder, kind):
    (path,) = (folder / kind).glob("rows/tiny/*.json")
    return path


def list_test_clips(folder):
    return palmkit.load_dataset(folder / "tiny", 1).test["path"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_predicts_what_its_trial_did(folder, kind, model):
    path = find_row(folder, kind)
    row = parse_row(path.read_bytes())
    predictor = load_predictor(path, checkpoint=model)
    logits = predictor.logits(list_test_clips(folder))
    assert torch.equal(logits.cpu(), load_tensors(row, folder / kind)["logits"])
    assert predictor.class_names == row["class_names"]


@pytest.mark.parametrize("kind", ["palm", "coop", "cocoop"])
def test_a_prompt_predicts_what_its_method_does(folder, kind, model, tmp_path):
    path = find_row(folder, kind)
    row = parse_row(path.read_bytes())
    save_prompt(tmp_path / "prompt.pth", load_method(row, folder / kind, model))
    clips = list_test_clips(folder)
    expected = palmkit.predict_clips(clips, row=path, checkpoint=model)
    found = palmkit.predict_clips(clips, prompt=tmp_path / "prompt.pth", checkpoint=model)
    pd.testing.assert_frame_equal(found, expected)


def test_a_transductive_method_says_what_it_does(folder, model, caplog, tmp_path):
    """All clips are classified together, a bad one left out; one clip alone is refused."""
    predictor = load_predictor(find_row(folder, "transclip"), checkpoint=model)
    clips = list_test_clips(folder)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with caplog.at_level("INFO", "palmkit"):
        found = predictor.predict([*clips, tmp_path / "bad.wav"])
    assert "TransCLIP is transductive: it classifies all given clips together" in caplog.text
    logits = predictor.logits(clips)
    expected = [predictor.class_names[n] for n in logits.argmax(1)]
    assert found["class"].tolist() == [*expected, ""] and found["error"].iloc[-1]
    assert (predictor.logits(clips[:2]) - logits[:2]).abs().max() > 1e-4
    message = "transclip is transductive: .* give two or more that can be read"
    for given in (clips[:1], [clips[0], tmp_path / "bad.wav"]):
        with pytest.raises(PredictionError, match=message):
            predictor.predict(given)
    caplog.clear()
    with caplog.at_level("INFO", "palmkit"):
        load_predictor(find_row(folder, "palm"), checkpoint=model).predict(clips[:1])
    assert "transductive" not in caplog.text


def test_what_is_told_of_a_clip(folder):
    found = palmkit.predict_clips(list_test_clips(folder), row=find_row(folder, "palm"))
    assert list(found) == ["path", "class", "probability", "margin", "error"]
    logits = load_tensors(parse_row(find_row(folder, "palm").read_bytes()), folder / "palm")[
        "logits"
    ]
    shares = torch.softmax(logits.double(), 1).sort(descending=True).values
    assert found["probability"].tolist() == pytest.approx(shares[:, 0].tolist())
    assert found["margin"].tolist() == pytest.approx((shares[:, 0] - shares[:, 1]).tolist())
    assert found["class"].tolist() == [sorted(CLASSES)[n] for n in logits.argmax(1)]


class TestCommand:
    @pytest.fixture
    def predict(self, folder, capsys):
        def predict(*arguments):
            code = main(["predict", "--row", str(find_row(folder, "palm")), *map(str, arguments)])
            return code, *capsys.readouterr()

        return predict

    @pytest.mark.slow
    def test_formats_have_the_same_clips(self, folder, predict):
        clips = list_test_clips(folder)
        code, text, _ = predict(*clips, "--format", "csv")
        table = pd.read_csv(io.StringIO(text), keep_default_na=False)
        lines = json.loads(predict(*clips, "--format", "json")[1])
        assert code == 0 and table["path"].tolist() == [line["path"] for line in lines] == clips
        assert table["class"].tolist() == [line["class"] for line in lines]
        shown = predict(*clips)[1].splitlines()
        assert shown[0] == "| path | class | probability | margin |"
        assert len(shown) == 2 + len(clips)

    def test_a_bad_file_costs_one_file(self, folder, predict, tmp_path):
        (tmp_path / "bad.wav").write_bytes(b"RIFF")
        clips = list_test_clips(folder)
        code, text, err = predict(tmp_path / "bad.wav", clips[0], "--format", "json")
        bad, good = json.loads(text)
        assert code == 1 and "bad.wav: " in err
        assert bad["class"] == "" and bad["probability"] is None and bad["error"]
        assert good["class"] in CLASSES and good["error"] == ""
        assert predict(tmp_path / "bad.wav", clips[0])[1].count("\n") == 3

    def test_folders_and_patterns(self, folder, predict, tmp_path):
        clips = list_test_clips(folder)
        shutil.copy(clips[0], tmp_path / "b.WAV")
        shutil.copy(clips[0], tmp_path / "a[1].wav")
        (tmp_path / "notes.txt").write_text("no sound")
        (tmp_path / ".hidden").mkdir()
        shutil.copy(clips[0], tmp_path / ".hidden" / "c.wav")
        names = ["a[1].wav", "b.WAV"]
        assert find_clips(tmp_path) == [str(tmp_path / name) for name in names]
        assert find_clips([str(tmp_path / "*.wav"), tmp_path]) == find_clips(tmp_path)
        assert find_clips(tmp_path / "a[1].wav") == [str(tmp_path / "a[1].wav")]
        code, text, _ = predict(tmp_path, "--format", "csv")
        assert code == 0 and len(pd.read_csv(io.StringIO(text))) == 2

    def test_what_is_not_there_is_named(self, predict, tmp_path):
        assert "there is no file, folder or pattern" in predict(tmp_path / "x*.wav")[2]
        assert "no audio file in the folder" in predict(tmp_path)[2]


class TestFaults:
    @pytest.mark.parametrize("given", ["", " ", ["", "x.wav"]])
    def test_an_empty_text_is_not_the_present_folder(self, given, tmp_path, monkeypatch):
        """As of a variable of a shell that is not set."""
        (tmp_path / "x.wav").write_bytes(b"x")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError, match="there is no file, folder or pattern"):
            find_clips(given)

    def test_another_checkpoint_is_an_error(self, folder, compact):
        with pytest.raises(PredictionError, match="learned with other weights"):
            load_predictor(find_row(folder, "palm"), checkpoint=compact.checkpoint)
        with pytest.raises(PredictionError, match="give the checkpoint of palm-fold1"):
            load_predictor(find_row(folder, "palm"), checkpoint="nowhere.pth")

    def test_a_published_prompt_says_what_is_missing(self, folder, model, tmp_path):
        method = load_method(
            parse_row(find_row(folder, "coop").read_bytes()), folder / "coop", model
        )
        save_prompt(tmp_path / "p.pth", method)
        torch.save(torch.load(tmp_path / "p.pth", weights_only=True), tmp_path / "p.pth")
        with pytest.raises(PredictionError, match="give method and class names"):
            load_predictor(prompt=tmp_path / "p.pth")
        told = dict(method="coop", class_names=method.class_names)
        with pytest.raises(PredictionError, match="give the checkpoint"):
            load_predictor(prompt=tmp_path / "p.pth", **told)
        told["checkpoint"] = model
        with pytest.raises(PromptError, match="ctx is"):  # its context has another length
            load_predictor(prompt=tmp_path / "p.pth", **told)
        predictor = load_predictor(prompt=tmp_path / "p.pth", **told, options={"context_length": 4})
        clips = list_test_clips(folder)
        expected = load_predictor(find_row(folder, "coop"), checkpoint=model).logits(clips)
        assert torch.equal(predictor.logits(clips), expected)

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"class_names": "dog"}', '{"class_names": [1]}', '{"options": 1}']
    )
    def test_what_a_prompt_says_may_be_damaged(self, folder, model, tmp_path, text):
        row = parse_row(find_row(folder, "palm").read_bytes())
        save_prompt(tmp_path / "p.pth", load_method(row, folder / "palm", model))
        torch.save(torch.load(tmp_path / "p.pth", weights_only=True), tmp_path / "p.pth")
        with zipfile.ZipFile(tmp_path / "p.pth", "a") as archive:
            archive.writestr("p/extra/palmkit.json", text)
        with pytest.raises(PromptError, match="p.pth: extra/palmkit.json in it is damaged"):
            load_predictor(prompt=tmp_path / "p.pth", checkpoint=model)

    def test_flags_that_contradict_the_file(self, folder, model, tmp_path):
        row = parse_row(find_row(folder, "palm").read_bytes())
        save_prompt(tmp_path / "p.pth", load_method(row, folder / "palm", model))
        with pytest.raises(PredictionError, match="the file's method is 'palm', not 'coop'"):
            load_predictor(prompt=tmp_path / "p.pth", method="coop")
        with pytest.raises(PredictionError, match="the file's class_names is"):
            load_predictor(prompt=tmp_path / "p.pth", class_names=row["class_names"][::-1])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda row: row.pop("class_names"), "has no class_names"),
            (lambda row: row.update(failed="x", error="x"), "failed"),
            (lambda row: row.update(diverged="step 3"), "its training diverged"),
            (lambda row: row.update(options={"pca_dim": 2}), "projected features"),
            (lambda row: row.update(options={"no": 2}), "unexpected keyword"),
            (lambda row: row.update(tensors="0"), "its checksum is not the row's"),
            (lambda row: row.pop("tensors"), "does not name their checksum"),
            (lambda row: row.update(class_names=["a", "b"]), "entries for 2 classes"),
            (
                lambda row: row.update(class_names=["a"] * 2, lambdas=[], lambdas_initial=[]),
                "class names must be distinct",
            ),
        ],
    )
    def test_a_row_that_cannot_be_used(self, folder, tmp_path, change, message, model):
        path = find_row(folder, "palm")
        shutil.copy(path.with_suffix(".safetensors"), tmp_path)
        row = json.loads(path.read_text())
        change(row)
        (tmp_path / path.name).write_text(json.dumps(row))
        with pytest.raises(PredictionError, match=message):
            load_predictor(tmp_path / path.name, checkpoint=model)

    def test_a_row_and_a_prompt_or_neither(self):
        for both in ({}, dict(row="a", prompt="b")):
            with pytest.raises(PredictionError, match="give a row, or a prompt"):
                load_predictor(**both)
