"""Two models as one: embeddings, texts, names, rows, and audio encoders without texts."""

import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from outside import few, make_home, read_rows  # noqa: F401
from tones import write_tones
from torch import nn
from toy_models import BidirectionalModel, WordModel

from palmkit import METHODS, embed, fit, load_model, predict
from palmkit.cli import main
from palmkit.corruptions import Corruption
from palmkit.encoder_check import check_encoder
from palmkit.experiments import executor, timing
from palmkit.experiments.cached import count_missing
from palmkit.experiments.executor import count_jobs, in_parallel
from palmkit.methods.base import normalize
from palmkit.models import AudioHalf, AudioOnly, AudioTextModel, ModelPair, PromptableText, pair
from palmkit.models.base import find_missing

NAMES = ["low hum", "high whistle", "noise"]
HALF = 2**-0.5


class SecondModel(WordModel):
    """Another rate, length, padding, width, prompt and logit scale than WordModel's."""

    name, note = "second", "other random weights"
    sample_rate, clip_seconds, dim, padding = 8_000, 2.0, 30, "pad"
    channels, about = "join", {"licence": "MIT"}
    prompt, logit_scale = "{}, recorded", 5.0

    def build(self):
        with torch.no_grad():
            for module in self.modules().values():
                for weight in module.parameters():
                    weight.normal_(generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Nine files of 1 to 6 s at 22,050 Hz; the second and the sixth have two channels."""
    return write_tones(tmp_path_factory.mktemp("clips"), [1 + n % 6 for n in range(9)], {1, 5})


@pytest.fixture
def counted(monkeypatch):
    """{model's name: clips that it encoded}."""
    counts, encode = {}, WordModel.encode_audio

    def count(self, waveforms):
        counts[self.name] = counts.get(self.name, 0) + len(waveforms)
        return encode(self, waveforms)

    monkeypatch.setattr(WordModel, "encode_audio", count)
    return counts


def zero_shot(model, features):
    return predict(METHODS["zeroshot"](model, NAMES), features)


# A pair as a model.


def test_it_is_a_model():
    both = ModelPair(WordModel(), SecondModel())
    assert isinstance(both, AudioTextModel) and not find_missing(both, AudioTextModel)
    assert not isinstance(both, PromptableText) and not isinstance(both, pair.AudioOnly)
    assert (both.dim, both.dims, both.logit_scale) == (78, (48, 30), 12.5)
    assert both.name == "words + second" and both.device == torch.device("cpu")
    assert both.note == "two models, words + second; random weights; other random weights"
    assert (both.sample_rate, both.clip_seconds, both.padding) == (16_000, 4.0, "repeat")
    assert (both.channels, both.about["licence"]) == ("mix", "not stated + MIT")
    for name in ("coop", "cocoop"):
        with pytest.raises(ValueError, match="which words . second does not have"):
            METHODS[name](both, NAMES)


def test_two_equal_models_are_one(clips):
    one = WordModel()
    twice = ModelPair(one, WordModel())
    alone, joined = embed(one, clips, cache=None), embed(twice, clips, cache=None)
    assert joined.features.shape == (9, 96) and joined.features.dtype == torch.float32
    expected = zero_shot(one, alone.features)
    torch.testing.assert_close(zero_shot(twice, joined.features), expected, rtol=0, atol=1e-5)
    methods = []
    for model, found in ((one, alone), (twice, joined)):
        methods.append(METHODS["kernel-ridge"](model, NAMES))
        fit(methods[-1], found.features, found.labels)
    results = [predict(methods[0], alone.features), predict(methods[1], joined.features)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-4)


def test_zero_shot_has_the_mean_of_both_cosines_in_each_model_s_own_words(clips):
    one, two = WordModel(), SecondModel()
    both = ModelPair(one, two)
    joined = embed(both, clips, cache=None)
    cosines = []
    for model, words in ((one, "a sound of {}"), (two, "{}, recorded")):
        text = model.encode_text([words.format(name) for name in NAMES])
        cosines.append(embed(model, clips, cache=None).features @ text.T)
    expected = 12.5 * (cosines[0] + cosines[1]) / 2
    torch.testing.assert_close(zero_shot(both, joined.features), expected, rtol=0, atol=1e-5)
    turned = ModelPair(two, one)
    other = zero_shot(turned, embed(turned, clips, cache=None).features)
    torch.testing.assert_close(other, expected, rtol=0, atol=1e-5)


def test_a_prompt_option_is_the_wording_of_both():
    one, two = WordModel(), SecondModel()
    both = ModelPair(one, two)
    text = METHODS["zeroshot"](both, NAMES, prompt="it is {}").text
    for part, model in zip(text.split(both.dims, 1), (one, two), strict=True):
        expected = model.encode_text([f"it is {name}" for name in NAMES])
        torch.testing.assert_close(part * 2**0.5, expected)
    bare = both.encode_text(NAMES)  # PALM's texts
    torch.testing.assert_close(bare[:, :48] * 2**0.5, one.encode_text(NAMES))
    torch.testing.assert_close(bare[:, 48:] * 2**0.5, two.encode_text(NAMES))


def test_what_a_prompt_is():
    prompt = ModelPair(WordModel(), SecondModel()).prompt
    assert prompt == "a sound of {}" and json.dumps(prompt) == '"a sound of {}"'
    again = pickle.loads(pickle.dumps(prompt)).format("dog")
    assert (again, again.other) == ("a sound of dog", "dog, recorded")


def test_a_second_model_without_texts_leaves_zero_shot_to_the_first(clips):
    one = WordModel()
    half = ModelPair(one, AudioHalf(SecondModel()))
    assert half.name == "words + second (audio)" and not half.encode_text(NAMES)[:, 48:].any()
    features = embed(half, clips, cache=None).features
    expected = zero_shot(one, embed(one, clips, cache=None).features)
    torch.testing.assert_close(zero_shot(half, features), expected, rtol=0, atol=1e-5)


def test_double_precision_of_one_is_that_of_both(monkeypatch):
    monkeypatch.setattr(SecondModel, "dtype", torch.float64)
    for both in (ModelPair(WordModel(), SecondModel()), ModelPair(SecondModel(), WordModel())):
        assert both.dtype == both.encode_text(NAMES).dtype == torch.float64
    assert ModelPair(WordModel(), AudioHalf(SecondModel())).dtype == torch.float32


# Embeddings.


def test_each_half_is_what_its_model_makes_alone(clips, tmp_path):
    one, two = WordModel(), SecondModel()
    joined = embed(ModelPair(one, two), clips, cache=tmp_path / "a")
    alone = [embed(model, clips, cache=tmp_path / "b") for model in (one, two)]
    for part, own in zip(joined.features.split([48, 30], 1), alone, strict=True):
        torch.testing.assert_close(part, own.features * HALF, rtol=1e-6, atol=0)
    torch.testing.assert_close(joined.features.norm(dim=1), torch.ones(9))
    assert (joined.offsets, joined.paths) == (alone[0].offsets, alone[0].paths)
    assert torch.equal(joined.labels, alone[0].labels) and alone[0].offsets != alone[1].offsets


def test_the_cache_of_one_model_serves_the_pair(clips, tmp_path, counted):
    one, two = WordModel(), SecondModel()
    both, paths = ModelPair(one, two), clips["path"]
    assert count_missing(both, paths, tmp_path) == 9
    embed(one, clips, cache=tmp_path)
    embed(two, clips[:4], cache=tmp_path)
    assert counted == {"words": 9, "second": 4} and count_missing(both, paths, tmp_path) == 5
    first = embed(both, clips, cache=tmp_path)
    assert counted == {"words": 9, "second": 9} and count_missing(both, paths, tmp_path) == 0
    turned = embed(ModelPair(two, one), clips, cache=tmp_path)
    embed(ModelPair(one, AudioHalf(two)), clips, cache=tmp_path)
    embed(two, clips, cache=tmp_path)
    assert counted == {"words": 9, "second": 9}  # nothing was encoded again
    assert torch.equal(turned.features, first.features.roll(30, 1))


def test_a_start_in_samples_is_one_moment_for_both(clips, tmp_path):
    one, two, long = WordModel(), SecondModel(), clips[clips.index % 6 == 5]
    joined = embed(ModelPair(one, two), long, cache=None, crop=16_000)
    alone = [embed(one, long, cache=None, crop=16_000), embed(two, long, cache=None, crop=8_000)]
    expected = torch.cat([own.features for own in alone], 1) * HALF
    torch.testing.assert_close(joined.features, expected)
    assert count_missing(ModelPair(one, two), long["path"], tmp_path, crop=16_000) == 1


@pytest.mark.slow
def test_corruptions_are_made_at_each_model_s_rate(clips, tmp_path):
    one, two = WordModel(), SecondModel()
    both = ModelPair(one, two)
    band = [Corruption("band", 900.0, rate) for rate in (16_000, 8_000)]
    joined = embed(both, clips, cache=tmp_path, transform=band[0])
    alone = [
        embed(model, clips, cache=None, transform=change).features
        for model, change in zip((one, two), band, strict=True)
    ]
    torch.testing.assert_close(joined.features, torch.cat(alone, 1) * HALF)
    assert count_missing(both, clips["path"], tmp_path, transform=band[0]) == 0
    assert count_missing(both, clips["path"], tmp_path) == 9

    def louder(waveform, seed):
        return waveform * 2

    louder.key = "louder"
    with pytest.raises(ValueError, match=r"needs a method at\(sample_rate\)"):
        embed(both, clips, cache=None, transform=louder)
    embed(ModelPair(one, WordModel()), clips, cache=None, transform=louder)  # of one rate


def test_waveforms_are_taken_if_both_models_take_the_same():
    waves = torch.randn(2, 64_000, generator=torch.Generator().manual_seed(0))
    one = WordModel()
    got = ModelPair(one, one).encode_audio(waves)
    torch.testing.assert_close(got[:, 48:], one.encode_audio(waves) * HALF)
    with pytest.raises(ValueError, match="padding or use of channels: use palmkit.embed"):
        ModelPair(one, SecondModel()).encode_audio(waves)
    joined = WordModel()
    joined.channels = "join"
    with pytest.raises(ValueError, match="use of channels"):
        ModelPair(one, joined).encode_audio(waves)


def test_time_and_processes_count_both_models(counted, monkeypatch):
    monkeypatch.setattr(timing, "clip_times", {})
    both = ModelPair(WordModel(), SecondModel())
    for _ in range(2):  # measured once
        assert timing.Clock(both).clip() > 0 and counted == {"words": 8, "second": 8}
    wide = SecondModel()
    wide.dim = 2000
    assert (count_jobs(both), count_jobs(ModelPair(both.first, wide))) == (1, 1)  # PALMKIT_JOBS


def test_a_wide_second_model_runs_one_trial_at_a_time(monkeypatch):
    monkeypatch.delenv("PALMKIT_JOBS")
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    wide = SecondModel()
    wide.dim = 2000
    assert count_jobs(ModelPair(WordModel(), SecondModel())) == 3
    assert count_jobs(ModelPair(WordModel(), wide)) == 1


# Identity.


def test_digests_tell_pairs_apart():
    a, b = WordModel(), SecondModel()
    models = [a, b, ModelPair(a, b), ModelPair(b, a), ModelPair(a, a), ModelPair(a, AudioHalf(b))]
    digests = [model.digest() for model in models]
    assert len({*digests}) == len(digests)
    assert [model.digest() for model in models] == digests
    assert len({ModelPair(a, b).audio_digest(), ModelPair(b, a).audio_digest()}) == 2
    b.words.weight.data += 1
    assert ModelPair(a, b).digest() != digests[2] and ModelPair(a, a).digest() == digests[4]


@pytest.mark.slow
def test_a_pair_travels_to_worker_processes(monkeypatch):
    both = ModelPair(WordModel(), AudioOnly(lambda x: x[:, :7], "slice", 16_000, 4.0, 7, "1"))
    assert pickle.loads(pickle.dumps(ModelPair(WordModel(), SecondModel()))).dims == (48, 30)
    monkeypatch.setattr(executor, "START", 0)
    calls = [(both, n) for n in range(2)]
    done = dict(in_parallel(describe, calls, [1, 1], 2))
    assert done == {n: (both.digest(), 55, n) for n in range(2)}


def describe(model, number):
    return model.digest(), model.encode_text(["dog"]).shape[1], number


# Names.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", None),
        ("a+b", ("a", "b")),
        ("a + b", ("a", "b")),
        ("b+a", ("b", "a")),
        ("x+y", None),  # a name as it is
        ("a+x+y", ("a", "x+y")),
        ("x+y+a", ("x+y", "a")),
        ("a+nothing", ("a", "nothing")),
    ],
)
def test_names(name, expected):
    assert pair.split_pair(name, ["a", "b", "x+y"]) == expected


@pytest.mark.parametrize("name", ["mini+", "+mini", "+", "mini+mini+mini", "a+b+c", "mini++mini"])
def test_names_of_no_pair(name):
    message = "does not name two models: use A.B, say mini.clap:FOLDER"
    with pytest.raises(ValueError, match=message):
        load_model(name)


def test_a_file_with_a_plus_is_a_file(tmp_path, compact):
    for folder in ("c++", "c"):
        (tmp_path / folder).mkdir()
    file = tmp_path / "c++" / "a.pth"
    file.write_bytes(compact.checkpoint.read_bytes())
    config = compact.checkpoint.parent / "config.json"
    if config.is_file():
        (file.parent / "config.json").write_bytes(config.read_bytes())
    one = load_model(file, "cpu")
    twice = load_model(f"{file}+{file}", "cpu")
    assert not isinstance(one, ModelPair) and isinstance(twice, ModelPair)
    assert twice.first.digest() == twice.second.digest() == one.digest()


@pytest.mark.slow
def test_a_clap_folder_is_one_of_two(clips, tmp_path, compact):
    pytest.importorskip("transformers", reason="transformers is not installed: palmkit[clap]")
    from small_clap import save_clap

    (tmp_path / "c++").mkdir()
    name = f"clap:{save_clap(tmp_path / 'c++')}"
    both = load_model(f"{compact.checkpoint}+{name}", "cpu")
    pengi, clap = both.encoders
    assert clap.digest() == load_model(name, "cpu").digest()
    assert both.logit_scale == (pengi.logit_scale + clap.logit_scale) / 2
    joined = embed(both, clips, cache=tmp_path)
    for part, model in zip(joined.features.split(both.dims, 1), both.encoders, strict=True):
        own = embed(model, clips, cache=tmp_path)
        torch.testing.assert_close(part, own.features * HALF, rtol=1e-6, atol=0)
        text = model.encode_text([model.prompt.format(one) for one in NAMES])
        got = METHODS["zeroshot"](both, NAMES).text.split(both.dims, 1)[model is clap]
        torch.testing.assert_close(got, text * HALF)
    half = load_model(f"{compact.checkpoint}+audio:{name}", "cpu")
    assert half.second.digest() == clap.audio_digest()
    turned = load_model(f"{name}+{compact.checkpoint}", "cpu")
    assert turned.prompt == clap.prompt and turned.digest() != both.digest()


def test_names_that_cannot_be_loaded():
    with pytest.raises(FileNotFoundError, match="did you mean 'mini'"):
        load_model("mini+mimi")
    with pytest.raises(FileNotFoundError, match="no checkpoint nothing.pth"):
        load_model("mini+nothing.pth")
    with pytest.raises(ValueError, match="audio:mini: without texts it can only be the second"):
        load_model("audio:mini")
    with pytest.raises(ValueError, match="can only be the second"):
        load_model("audio:mini+mini")
    half = load_model("mini+audio:mini", "cpu")
    assert half.texts == (half.first,) and half.second.digest() == half.first.audio_digest()


def test_models_that_cannot_be_a_pair():
    a, b = WordModel(), SecondModel()
    for models in ((ModelPair(a, b), a), (a, ModelPair(a, b))):
        with pytest.raises(ValueError, match="neither is a pair itself"):
            ModelPair(*models)
    with pytest.raises(ValueError, match=r"second \(audio\), lacks .*: name a model with texts"):
        ModelPair(AudioHalf(b), a)
    b.device = torch.device("meta")
    with pytest.raises(ValueError, match="words is on cpu and second on meta: load both on"):
        ModelPair(a, b)
    del b.device
    with pytest.raises(ValueError, match="the second model of a pair, second, lacks device"):
        ModelPair(a, b)


# Audio encoders without texts.


def bands(waveforms):
    """[n, samples] -> [n, 10]: the loudness of ten parts of the spectrum."""
    spectrum = torch.fft.rfft(waveforms).abs()[:, : waveforms.shape[1] // 20 * 10]
    return spectrum.unflatten(1, (10, -1)).mean(2)


def test_a_function_is_an_audio_model(clips):
    one, only = WordModel(), AudioOnly(bands, "bands", 8_000, 1.5, 10, "bands 1", padding="pad")
    both = ModelPair(one, only)
    features = embed(both, clips, cache=None, crop="start").features
    torch.testing.assert_close(features.norm(dim=1), torch.ones(9))
    alone = embed(only, clips, cache=None, crop="start").features
    torch.testing.assert_close(features[:, 48:], alone * HALF)
    waves = torch.randn(3, 12_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(only.encode_audio(waves), normalize(bands(waves)))
    method = METHODS["product-kernel-ridge"](both, NAMES)
    labels = torch.arange(9) % 3
    fit(method, features, labels)
    assert predict(method, features).shape == (9, 3)


def test_the_digest_of_a_function():
    plain = AudioOnly(bands, "bands", 8_000, 1.5, 10, "1")
    others = [
        AudioOnly(bands, "bands", 8_000, 1.5, 10, "2"),
        AudioOnly(bands, "bands", 16_000, 1.5, 10, "1"),
        AudioOnly(bands, "bands", 8_000, 2.0, 10, "1"),
        AudioOnly(bands, "bands", 8_000, 1.5, 10, "1", padding="pad"),
        AudioOnly(bands, "bands", 8_000, 1.5, 10, "1", channels="join"),
    ]
    assert len({one.digest() for one in (plain, *others)}) == 6
    assert AudioOnly(bands, "other name", 8_000, 1.5, 10, "1").digest() == plain.digest()


def test_a_module_has_a_digest_of_its_own():
    layer = nn.Sequential(nn.Linear(800, 6), nn.Dropout(0.9))
    only = AudioOnly(layer, "layer", 800, 1.0, 6)
    assert not layer.training and not layer[0].weight.requires_grad
    waves = torch.randn(2, 800, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(only.encode_audio(waves), F.normalize(layer[0](waves), dim=1))
    before = only.digest()
    layer[0].weight.data *= 2
    assert (
        only.digest() != before and AudioOnly(layer, "layer", 800, 1.0, 6, "x").digest() != before
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": None}, "give a text that names weights and preprocessing"),
        ({"digest": " "}, "give a text"),
        ({"digest": 3}, "give a text"),
        ({"function": "bands"}, "no function of waveforms"),
        ({"padding": "mirror"}, "padding='mirror': use repeat"),
        ({"channels": "left"}, "channels='left': use mix, join"),
    ],
)
def test_what_is_no_audio_model(change, message):
    given = dict(function=bands, sample_rate=8_000, clip_seconds=1.5, dim=10, digest="1")
    with pytest.raises(ValueError, match=f"^bands: .*{message}"):
        AudioOnly(name="bands", **(given | change))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[:, :4], r"bands returned the shape \[2, 4\]: return \[2, 10\]"),
        (lambda x: x[0, :10], r"returned the shape \[10\]"),
        (lambda x: 0 * x[:, :10], "a vector of zeros, which has no direction"),
    ],
)
def test_what_a_function_must_return(function, message):
    only = AudioOnly(function, "bands", 8_000, 1.5, 10, "1")
    with pytest.raises(ValueError, match=message):
        only.encode_audio(torch.ones(2, 12_000))


# Runs.

AUDIO = """
import torch
from palmkit.models import AudioOnly


def parts(waveforms):
    return waveforms.unflatten(1, (8, -1)).abs().mean(2)


def load(device="auto"):
    return AudioOnly(parts, "parts", 4_000, 0.8, 8, digest="parts 1", device="cpu", note="parts")


def wrong(device="auto"):
    return AudioOnly(parts, "parts", 4_000, 0.8, 9, digest="parts 1", device="cpu")


MODELS = {"parts": load, "wrong": wrong}
"""


@pytest.fixture
def run_with(home):
    """palmkit run with the toy model, the audio encoder `parts`, and more flags."""
    (home / "my_audio.py").write_text(AUDIO)

    def run(checkpoint, *more, name="a"):
        imports = ["--import", home / "toy_model.py", home / "my_audio.py"]
        flags = few(home, *imports, "--checkpoint", checkpoint, "--name", name, *more)
        return main(["run", *flags])

    return run


METHODS_SHOWN = ("zeroshot", "palm", "kernel-ridge", "product-kernel-ridge")


@pytest.mark.slow
def test_a_run_of_a_callable_from_outside(home, run_with, capsys):
    assert run_with("toy+parts", "--method", *METHODS_SHOWN) == 0
    shown = capsys.readouterr()
    assert "| encoders=two | Zero-shot | PALM |" in shown.out
    assert "Note: two models, toy + parts; a toy; parts" in shown.err
    rows = read_rows(home, "a")
    model = load_model("toy+parts")
    for row in rows.values():
        assert (row["model"], row["encoders"]) == ("toy + parts", "two")
        assert row["weights"] == model.digest() and row["note"] == model.note
        assert [row[half] for half in ("first", "second")] == ["toy 1", model.second.digest()]
    page = (home / "runs" / "a" / "index.html").read_text()
    assert "toy + parts" in page and "encoders=two" in page and "second of two models" in page
    assert main(["leaderboard", "a"]) == 0
    assert "Settings: encoders=two" in capsys.readouterr().out
    (row,) = (home / "runs" / "a" / "rows" / "tiny").glob("product*.json")
    clip = home / "tiny" / "belltest0.wav"
    assert main(["predict", str(clip), "--row", str(row)]) == 0
    assert "belltest0.wav" in capsys.readouterr().out
    assert main(["predict", str(clip), "--row", str(row), "--checkpoint", "parts+toy"]) == 1
    assert "lacks" in capsys.readouterr().err
    assert main(["predict", str(clip), "--row", str(row), "--checkpoint", "toy+toy"]) == 1
    assert "was learned with other weights" in capsys.readouterr().err


@pytest.mark.slow
def test_one_and_two_encoders_are_never_in_one_table(home, run_with, capsys):
    for checkpoint in ("toy", "toy+parts", "toy+toy"):
        assert run_with(checkpoint, "--method", "zeroshot", "kernel-ridge") == 0
    capsys.readouterr()
    paths = [*(home / "runs" / "a" / "rows" / "tiny").glob("*.json")]
    rows = [json.loads(path.read_text()) for path in paths]
    assert len(rows) == 6 and len({row["key"] for row in rows}) == 6
    for command in ("table", "leaderboard"):
        assert main([command, "a"]) == 0
        heads = [line for line in capsys.readouterr().out.splitlines() if "encoders=" in line]
        tables = [line for line in heads if line.startswith("|")]
        assert len(tables) == 3 and sum("encoders=one" in line for line in tables) == 1
        assert sum("encoders=two" in line for line in tables) == 2


def test_what_cannot_run(home, run_with, capsys):
    def refused(checkpoint, *methods):
        assert run_with(checkpoint, "--method", *methods) == 1
        return capsys.readouterr().err.splitlines()[-1]

    only = "palmkit: the model 'parts' lacks logit_scale, prompt, dtype, encode_text of "
    assert refused("parts", "zeroshot") == (
        f"{only}AudioTextModel; without texts it can only be the second of a pair, say mini+parts"
    )
    assert refused("parts+toy", "zeroshot").startswith(only)
    assert "needs two models, and toy is one" in refused("toy", "zeroshot", "product-kernel-ridge")
    assert "another model: use protocol='frozen'" in refused(
        "toy+parts", "palm", "--protocol", "released"
    )
    assert "parts returned the shape [2, 8]: return [2, 9]" in refused("toy+wrong", "zeroshot")
    assert "needs the stages" in refused("toy+parts", "palm-aspl")
    assert "toy + parts does not have" in refused("toy+parts", "coop")
    test_clips = [*(home / "tiny").glob("*test*.wav")]
    assert count_missing(load_model("toy"), test_clips) == 4  # nothing was embedded


@pytest.mark.slow
def test_what_there_is_to_do(run_with, capsys):
    assert run_with("toy+parts", "--method", "product-kernel-ridge", "--dry-run") == 0
    assert "1 trials, 0 of them done; 8 clips to encode" in capsys.readouterr().err
    assert run_with("toy", "--method", "zeroshot") == 0
    capsys.readouterr()
    more = ("--method", "product-kernel-ridge", "--regime", "support", "--option", "lam=0.2")
    assert run_with("toy+toy", *more, "--dry-run") == 0
    assert "4 clips to encode" in capsys.readouterr().err  # the test clips are in the cache
    assert run_with("toy+toy", *more) == 0


@pytest.mark.slow
def test_tasks_that_are_changed(home, run_with):
    """Projected features and corrupted clips, of a pair as of a model."""
    assert run_with("toy+parts", "--method", "palm", "--option", "pca_dim=2") == 0
    assert read_rows(home, "a")["palm"]["trainable"] == 2 * (2 + 1)
    noise = ("--option", 'corruption=["noise", 0.0]')
    assert run_with("toy+parts", "--method", "product-kernel-ridge", *noise) == 0
    assert "diverged" in read_rows(home, "a")["product-kernel-ridge"]


def test_the_explorer_takes_a_pair(home):
    from palmkit.widgets import session

    both = ModelPair(WordModel(), SecondModel())
    task = session.open_task(str(home / "tiny"), both)
    data = Path(task.test.paths[0]).read_bytes()
    found = session.uploaded_recording(task, "mine.wav", data)
    torch.testing.assert_close(found.feature, task.test.features[0])
    assert "product-kernel-ridge" not in session.bench_methods()
    run = session.train(task, "palm", shots=2, epochs=1)
    assert predict(run.method, task.test.features).shape == (4, 2)


def test_tokens_of_the_first_are_not_those_of_the_pair():
    assert not isinstance(ModelPair(BidirectionalModel(), WordModel()), PromptableText)


def test_the_encoder_that_the_guide_shows(home, monkeypatch):
    page = Path(__file__).parents[2].joinpath("docs", "rivals.md").read_text()
    block = page.split("```python\n# my_audio.py\n")[1].split("```")[0]
    (home / "my_audio.py").write_text(block)
    monkeypatch.setenv("PALMKIT_IMPORT", str(home / "my_audio.py"))
    both = load_model("mini+bands", "cpu")
    assert both.dims == (both.first.dim, 40) and both.name == "mini + bands"


@pytest.mark.slow
def test_the_check_of_a_model_is_of_both(monkeypatch):
    report = check_encoder(ModelPair(WordModel(), AudioHalf(SecondModel())))
    assert report.title.startswith("words + second (audio): ")
    assert report["first: text embeddings"].state == "ok"
    assert report["second: audio embeddings"].state == "ok"
    assert report["second: text embeddings"].state == "not tested"
    plain = SecondModel.encode_text
    monkeypatch.setattr(SecondModel, "encode_text", lambda self, prompts: 2 * plain(self, prompts))
    report = check_encoder(ModelPair(WordModel(), SecondModel()))
    assert report["second: text unit length"].state == "wrong" and not report.ok
    assert report["first: text unit length"].state == "ok"
