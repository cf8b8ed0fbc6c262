"""`check_encoder`: right models pass, and each fault is found by the check that should find it."""

import hashlib
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_models import BidirectionalModel, WordModel
from wrong_models import (
    FAULTS,
    FIVE,
    CountingDigest,
    Dropout,
    FiveFaults,
    FixedDigest,
    HugeScale,
    InPlace,
    Locked,
    NoBuffers,
    RaisesAlone,
    RateNotHashed,
    Resampling,
    RightModel,
    Seeding,
    Threads,
)

import palmkit
from palmkit.cli import main
from palmkit.encoder_check import check_encoder, check_name
from palmkit.encoder_check.embeddings import is_same_device
from palmkit.encoder_check.members import check_members
from palmkit.encoder_check.run import list_checks
from palmkit.encoder_check.sounds import PEAK, make_sounds
from palmkit.encoder_check.subject import (
    Subject,
    find_tensors,
    hash_tensors,
    read_generators,
    read_settings,
)
from palmkit.models import load_model
from palmkit.plugins import load_plugins

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAMES = [check.name for check in list_checks("")]
TOKENS = [check.name for check in list_checks("") if check.kind == "tokens"]


def not_ok(report) -> dict[str, str]:
    """{check: state} of all that is wrong, and of remarks."""
    return {one.check: one.state for one in report.findings if one.state in ("wrong", "remark")}


class TestRightModels:
    def test_every_check_of_a_right_model_is_ok(self):
        report = check_encoder(RightModel(), RightModel)
        assert [one.check for one in report.findings] == NAMES
        assert {one.state for one in report.findings} == {"ok"} and report.ok
        assert all(re.search(r"[.)]$", one.what) for one in report.findings), "sentences"

    def test_a_model_without_tokens(self):
        report = check_encoder(WordModel(), WordModel)
        assert report.ok and not_ok(report) == {"volume": "remark"}
        assert [one.check for one in report.select("not tested")] == TOKENS

    def test_a_model_that_is_not_causal(self):
        report = check_encoder(BidirectionalModel(), BidirectionalModel)
        assert report.ok and not report.select("not tested")
        assert not_ok(report) == {"volume": "remark", "long texts": "remark"}
        assert "fail without words (RuntimeError" in report["long texts"].words

    @pytest.mark.slow
    def test_mini_pengi(self):
        report = check_name("mini", "cpu")
        assert {one.state for one in report.findings} == {"ok"}, str(report)

    @pytest.mark.slow
    def test_a_small_clap(self, tmp_path):
        pytest.importorskip("transformers")
        from small_clap import save_clap

        report = check_name(f"clap:{save_clap(tmp_path)}", "cpu")
        assert report.ok, str(report)
        assert set(not_ok(report)) == {"volume", "spelling"}

    @pytest.mark.slow
    def test_a_small_msclap(self, tmp_path):
        """It has no start token, and says so."""
        pytest.importorskip("transformers")
        from small_msclap import save_msclap

        report = check_name(f"msclap:{save_msclap(tmp_path)}", "cpu")
        assert report.ok, str(report)
        assert report["token ids"].what.startswith("Special tokens: 0 in front, 2 behind")

    def test_a_model_that_resamples_itself(self):
        assert not_ok(check_encoder(Resampling(), Resampling)) == {}

    def test_a_module(self):
        report = check_encoder(AsModule(), AsModule)
        assert not_ok(report) == {} and not report.select("not tested")
        model = AsModule()
        model.head.train().requires_grad_(True)
        report = check_encoder(model)
        assert not_ok(report) == {"frozen": "wrong"} and "head.weight" in report["frozen"].what

    def test_an_audio_encoder(self):
        report = check_encoder(AudioOnly(), AudioOnly)
        assert report.ok and not_ok(report) == {"members": "remark"}
        assert report["audio batches"].state == report["digest covers"].state == "ok"
        kinds = {check.name for check in list_checks("") if check.kind != "audio"}
        assert {one.check for one in report.select("not tested")} == kinds


class AsModule(nn.Module):
    """The right model as a torch module."""

    name, sample_rate, clip_seconds, dim, note = "module", 16_000, 1.0, 16, ""
    logit_scale, prompt, dtype, device = 20.0, "a {}", torch.float32, torch.device("cpu")
    text_width = RightModel.text_width

    def __init__(self):
        super().__init__()
        right = RightModel()
        for name, module in RightModel.modules(right).items():
            self.add_module(name, module)

    encode_audio, encode_text = RightModel.encode_audio, RightModel.encode_text
    encode, encode_embeddings = RightModel.encode, RightModel.encode_embeddings
    embed_tokens = RightModel.embed_tokens

    def tokenize(self, prompts):
        return RightModel().tokenize(prompts)

    def digest(self):
        tensors = [one.numpy().tobytes() for _, one in sorted(self.state_dict().items())]
        return hashlib.sha256(b"".join(tensors) + str(self.sample_rate).encode()).hexdigest()


class AudioOnly:
    """The audio half of the right model."""

    name, sample_rate, clip_seconds, dim = "ears", 16_000, 1.0, 16
    device = torch.device("cpu")

    def __init__(self):
        self.whole = RightModel()

    def encode_audio(self, waveforms):
        return self.whole.encode_audio(waveforms)

    def digest(self):
        return self.whole.digest()


class TestFaults:
    @pytest.mark.parametrize("cls", FAULTS, ids=lambda cls: cls.__name__)
    def test_a_fault_is_found_by_its_check_alone(self, cls):
        expected, words = FAULTS[cls]
        report = check_encoder(cls(), cls)
        assert not_ok(report) == expected, str(report)
        assert any(words in report[check].words for check in expected), str(report)
        assert report.ok == ("wrong" not in expected.values())

    def test_each_check_that_judges_has_a_fault(self):
        states = {}
        for expected, _ in FAULTS.values():
            for check, state in expected.items():
                states.setdefault(check, set()).add(state)
        assert set(NAMES) - set(states) == {"speed"}, "which only measures"
        only_remarks = {check for check, found in states.items() if found == {"remark"}}
        assert only_remarks == {"logit scale", "volume", "spelling"}

    def test_what_is_wrong_has_an_effect_and_advice(self):
        for cls in (FiveFaults, HugeScale):
            for one in check_encoder(cls(), cls).select("wrong"):
                assert one.effect and one.advice and one.words.count(".") >= 3

    def test_five_faults_at_once_are_all_said(self):
        report = check_encoder(FiveFaults(), FiveFaults)
        assert tuple(one.check for one in report.select("wrong")) == FIVE
        assert not report.select("not tested")

    def test_a_loss_that_is_no_number(self):
        report = check_encoder(HugeScale(), HugeScale)
        wrong = {"zero-shot": "wrong", "PALM": "wrong", "COOP": "wrong"}
        assert not_ok(report) == wrong | {"logit scale": "remark"}
        assert "nan" in report["PALM"].what

    def test_nothing_of_it_fits(self):
        """Every member is missing or of a wrong type: one finding says so, and nothing raises."""
        report = check_encoder(object())
        assert list(not_ok(report)) == ["members"]
        assert "sample_rate is missing: use a number over 0" in report["members"].what
        assert report["audio batches"].what.startswith("First mend: sample_rate, clip_seconds")

    @pytest.mark.parametrize("member", ["note", "name", "logit_scale", "text_width", "encode_text"])
    def test_a_property_that_raises(self, member):
        def fail(self):
            raise KeyError(f"no {member}")

        broken = type("Broken", (RightModel,), {member: property(fail)})
        report = check_encoder(broken())
        assert not report.ok and f"KeyError: 'no {member}'" in report["members"].words

    @pytest.mark.parametrize(("member", "value"), [("sample_rate", 16), ("clip_seconds", 7000.0)])
    def test_other_units(self, member, value):
        """kHz and milliseconds are of the right type."""
        model = RightModel()
        setattr(model, member, value)
        verdict = check_members(Subject(model))
        assert verdict.state == "remark" and f"{member}={value}: is it in " in verdict.what

    def test_a_class_in_place_of_a_model(self):
        report = check_encoder(RightModel)
        assert list(not_ok(report)) == ["members"]
        assert "is the class RightModel and not an object of it" in report["members"].what

    def test_the_last_lines_of_a_traceback(self):
        words = check_encoder(RaisesAlone())["audio batches"].words
        assert re.search(r"wrong_models.py, line \d+, encode_audio: raise IndexError", words)
        assert "encoder_check" not in words


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("cpu", "cpu", True),
        ("cuda:0", "cuda:0", True),
        ("cuda", "cuda:1", True),
        ("cuda:0", "cuda:1", False),
        ("cpu", "cuda", False),
    ],
)
def test_devices(first, second, same):
    assert is_same_device(torch.device(first), torch.device(second)) == same


CHANGING = [RightModel, FiveFaults, InPlace, Seeding, Threads, Dropout, CountingDigest, NoBuffers]
CHANGING += [FixedDigest, RateNotHashed, Locked]


class TestLeavesThingsAsTheyWere:
    @pytest.mark.parametrize("cls", CHANGING)
    def test_the_process_and_the_model(self, cls):
        model = cls()
        before = read_settings(), read_generators(), hash_tensors(model), sorted(vars(model))
        check_encoder(model, cls)
        after = read_settings(), read_generators(), hash_tensors(model), sorted(set(vars(model)))
        assert before[:3] == after[:3]
        assert set(after[3]) - set(before[3]) <= {"count"}  # which the model sets itself
        assert not any(one.requires_grad for one in find_tensors(model).values())


class TestReport:
    def test_from_python(self):
        assert palmkit.check_encoder is check_encoder
        report = palmkit.check_encoder(RightModel())
        table = report.table()
        assert list(table["check"]) == NAMES and set(table["state"]) == {"ok"}
        assert "Not loaded twice" in report["digest"].what
        with pytest.raises(KeyError, match="no such check"):
            report["no such check"]
        assert pickle.loads(pickle.dumps(report)) == report

    def test_as_text(self):
        report = check_encoder(FiveFaults(), FiveFaults)
        lines = str(report).splitlines()
        assert lines[0] == "five faults: 16000 Hz, 1.0 s, 16 dimensions, on cpu"
        assert max(map(len, lines)) <= 100
        assert lines[-1] == "37 checks: 32 ok, 5 wrong. This model is not right yet."
        text = " ".join(str(report).split())
        for one in report.findings:
            assert " ".join(one.what.split()) in text
        for one in report.select("wrong"):
            assert f"Effect: {one.effect}" in text and f"To do: {one.advice}" in text

    def test_what_is_not_tested_is_listed_by_reason(self):
        text = str(check_encoder(WordModel()))
        (line,) = [x for x in text.split("\n\n") if "Not tested: " in x]
        reason = "The model has no token-level text (PromptableText)."
        assert " ".join(line.split()) == f"{reason} Not tested: {', '.join(TOKENS)}."

    def test_the_sample_in_the_docs(self):
        """Its checks and states are those of the model with five faults, as it is now."""
        page = (ROOT / "docs" / "check_model.md").read_text()
        sample = re.findall(r"^```text\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0]
        report = check_encoder(FiveFaults(), FiveFaults)
        shown = re.findall(r"^(\S.*?) {2,}(ok|remark|wrong) {2,}\S", sample, re.MULTILINE)
        assert shown == [(one.check, one.state) for one in report.findings]
        for one in report.select("wrong"):
            assert " ".join(one.effect.split()) in " ".join(sample.split())


class TestSounds:
    @pytest.mark.parametrize(("rate", "samples"), [(8000, 4000), (44_100, 308_700)])
    def test_they_differ_and_fill_the_clip(self, rate, samples):
        sounds = make_sounds(rate, samples)
        waves = torch.stack(list(sounds.values()))
        assert waves.shape == (8, samples) and waves.dtype == torch.float32
        torch.testing.assert_close(waves.abs().amax(1), torch.full((8,), PEAK))
        spectra = torch.fft.rfft(waves).abs()
        spectra = spectra / spectra.norm(dim=1, keepdim=True)
        assert (spectra @ spectra.T - torch.eye(8)).max() < 0.95
        assert not torch.equal(waves, torch.stack(list(make_sounds(rate, samples, 1).values())))


MODULE = """
from wrong_models import FiveFaults, RightModel


def broken(device="auto"):
    raise OSError("weights.pt is missing")


def nothing(device="auto"):
    pass


MODELS = {"right": RightModel, "five": FiveFaults, "broken": broken, "nothing": nothing}
"""


class TestCommand:
    @pytest.fixture
    def module(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PALMKIT_IMPORT", "")
        path = tmp_path / f"models_{tmp_path.name}.py"
        path.write_text(MODULE)
        return str(path)

    def test_a_right_model(self, module, capsys):
        assert main(["check-model", "right", "--import", module, "--device", "cpu"]) == 0
        out = capsys.readouterr().out
        assert "37 checks: 37 ok. Nothing is wrong." in out
        assert "the model loaded a second time" in " ".join(out.split())

    def test_a_wrong_model_is_loaded_all_the_same(self, module, capsys):
        with pytest.raises(ValueError, match="not of unit length"):
            load_plugins([module])
            load_model("five", "cpu")
        assert main(["check-model", "five", "--import", module, "--device", "cpu"]) == 1
        out = capsys.readouterr().out
        assert "5 wrong. This model is not right yet." in out

    def test_as_json(self, module, capsys):
        assert main(["check-model", "five", "--import", module, "--json", "--device", "cpu"]) == 1
        found = json.loads(capsys.readouterr().out)
        wrong = [one["check"] for one in found["findings"] if one["state"] == "wrong"]
        assert not found["ok"] and tuple(wrong) == FIVE

    @pytest.mark.parametrize(
        ("name", "words"),
        [("broken", "OSError: weights.pt is missing"), ("nothing", "The loader returned None")],
    )
    def test_a_loader_that_fails(self, module, capsys, name, words):
        assert main(["check-model", name, "--import", module]) == 1
        out = capsys.readouterr().out
        assert words in out and "loading" in out and "1 wrong" in out

    def test_a_name_of_no_model(self, capsys):
        assert main(["check-model", "minni"]) == 1
        assert "did you mean 'mini'?" in capsys.readouterr().err


def test_the_model_s_own_learning_rate_is_tried_first():
    class Stated(RightModel):
        defaults = {"lr": 500.0}

    palm = check_encoder(Stated(), Stated)["PALM"]
    assert palm.state != "ok" and "with lr=500" in palm.what
