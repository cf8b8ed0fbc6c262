"""What the widgets compute, what each control does, and the messages about errors.

`make browser` is for what they look like.
"""

import gc
import html
import io
import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import soundfile
import torch
from toy_models import WordModel

from palmkit import METHODS, PALM, evaluate, fit, load_pengi, widgets
from palmkit.experiments.run import run_trials
from palmkit.experiments.trials import make_grid
from palmkit.methods.zero_shot import ZeroShot
from palmkit.training import predict
from palmkit.widgets import session
from palmkit.widgets.html import confusion_table, mark_of

pytestmark = pytest.mark.usefixtures("one_thread")
SIX = ("listen", "prompt_bench", "few_shot_bench", "lambda_bench", "embedding_map", "worst_errors")
DATASET = "tones"


@pytest.fixture(scope="module")
def mini():
    return load_pengi("mini", device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of three kinds of tone, made in a moment, in the published layout."""
    root = tmp_path_factory.mktemp("data") / DATASET
    (root / "audios").mkdir(parents=True)
    rng, seconds = np.random.default_rng(0), np.arange(22_050) / 22_050
    for split, clips in (("train", 4), ("test", 5)):
        lines = ["path,classname"]
        for name, hertz in (
            ("dog bark", 300),
            ("rain", 300),
            ("whistle", 2500),
        ):  # two of them sound alike
            for n in range(clips):
                sound = np.sin(2 * np.pi * (hertz + 40 * n) * seconds) + rng.normal(
                    0, 0.3, len(seconds)
                )
                soundfile.write(root / "audios" / f"{split}_{name}_{n}.wav", 0.2 * sound, 22_050)
                lines.append(f"audios/{split}_{name}_{n}.wav,{name}")
        (root / f"{split}.csv").write_text("\n".join(lines))
    return str(root)


@pytest.fixture(scope="module")
def task(folder, mini):
    return session.open_task(folder, mini)


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    """The compared methods need not be good here."""
    train = session.train
    monkeypatch.setattr(
        session, "train", lambda *a, **k: train(*a, **{**k, "epochs": min(2, k.get("epochs", 2))})
    )


@pytest.fixture
def bench(request, folder, mini):
    made = getattr(widgets, request.param)(folder, mini)
    made.wait(60)
    assert words(made.status) == ""
    return made


def one(name):
    return pytest.mark.parametrize("bench", [name], indirect=True)


def words(widget) -> str:
    """What is read, without tags and without what pictures are made of."""
    return html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", widget.value)).strip()


def everything(bench) -> dict:
    """All that a person can see change: the state of each widget below the bench."""
    found, todo = {}, [bench]
    while todo:
        widget = todo.pop()
        todo += getattr(widget, "children", ())
        for name in ("value", "options", "points", "trail", "hover", "disabled"):
            if hasattr(widget, name):
                found[widget.model_id, name] = getattr(widget, name)
    return found


def others(bench, control) -> dict:
    return {key: value for key, value in everything(bench).items() if key[0] != control.model_id}


# What is computed


def test_a_callback_after_each_epoch_changes_no_training(task):
    support, calls = task.support(4, 0), []
    losses = {}
    for name, hook in (("plain", None), ("called", lambda *a: calls.append(a))):
        method = PALM(task.model, task.class_names)
        losses[name] = fit(
            method, support.features, support.labels, epochs=3, batch_size=5, on_epoch=hook
        )
    assert losses["plain"] == losses["called"] and [epoch for epoch, _ in calls] == [1, 2, 3]
    assert [loss for _, loss in calls] == pytest.approx(
        np.array(losses["plain"]).reshape(3, -1).mean(1)
    )


def test_a_callback_can_stop_a_training(task):
    def stop(epoch, _):
        if epoch == 2:
            raise session.Stopped

    support, runs = task.support(4, 0), [PALM(task.model, task.class_names) for _ in range(2)]
    with pytest.raises(session.Stopped):
        fit(runs[0], support.features, support.labels, epochs=9, on_epoch=stop)
    fit(runs[1], support.features, support.labels, epochs=2)
    assert torch.equal(runs[0].z, runs[1].z)


def test_a_run_is_tracked(task):
    run = session.train(task, "palm", shots=4, epochs=2, track=True)
    scores = evaluate(run.method, task.test.features, task.test.labels)
    assert run.accuracies[-1] == scores["accuracy"] and len(run.losses) == len(run.lambdas) == 2
    assert run.lambdas[-1] == run.method.lambdas.tolist()


def test_a_task_is_opened_once_and_noticed_when_it_changes(folder, mini, task):
    assert session.open_task(folder, mini) is task and task.trained("palm") is task.trained("palm")
    assert session.open_task(folder, load_pengi("mini", device="cpu")) is not task


@pytest.mark.slow
def test_generating_a_dataset_has_progress_and_can_be_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path))
    seen = []

    def on_progress(done, total):
        seen.append((done, total))
        if len(seen) == 2:
            raise session.Stopped

    with pytest.raises(session.Stopped):
        session.tasks.build_tasks(["GermanEmotions"], on_class=on_progress)
    folder = tmp_path / "mini-tasks" / session.tasks.version() / "GermanEmotions"
    assert seen == [(0, 4), (1, 4)] and not session.tasks.is_built(folder)
    session.tasks.build_tasks(["GermanEmotions"], on_class=lambda *a: seen.append(a))
    assert seen[2:] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)] and session.tasks.is_built(folder)
    assert session.load_dataset("GermanEmotions", 1).root == folder


def test_datasets_that_can_be_chosen(folder, monkeypatch):
    monkeypatch.setenv("PALMKIT_DATA", str(Path(folder).parent))
    assert session.list_datasets() == [*session.tasks.DEFAULT_TASKS, DATASET]


@pytest.mark.slow
def test_embedding_has_progress_and_can_be_stopped(folder, mini, tmp_path):
    seen = []

    def on_progress(done, total):
        seen.append((done, total))
        raise session.Stopped

    paths = session.load_dataset(folder).test["path"].tolist()
    with pytest.raises(session.Stopped):
        session.embed(mini, paths, cache=tmp_path, batch_size=4, on_progress=on_progress)
    assert seen == [(4, 15)]
    session.embed(mini, paths, cache=tmp_path, batch_size=16, on_progress=lambda *a: seen.append(a))
    assert seen[1:] == [(11, 11)]  # what was embedded before the stop is kept


def test_a_clip_is_what_its_embedding_is_of(task):
    sound = session.clip_recording(task, 7)
    assert torch.allclose(
        task.model.encode_audio(sound.waveform[None])[0], sound.feature, atol=1e-5
    )
    upload = session.uploaded_recording(task, sound.name, sound.data)
    assert torch.allclose(upload.feature, sound.feature, atol=1e-5) and torch.equal(
        upload.log_mel, sound.log_mel
    )


@pytest.mark.slow
def test_a_player_carries_the_heard_seconds_only(task):
    """Of a long file not all of it, and of a short one no repetition."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (44_100 * 40, 2))
    soundfile.write(file, noise, 44_100, format="FLAC")
    long = session.uploaded_recording(task, "long.flac", file.getvalue())
    played, rate = soundfile.read(io.BytesIO(long.data))
    assert rate == task.model.sample_rate and long.sound_name.endswith(".wav")
    assert np.abs(played - long.waveform.numpy()).max() < 1e-4
    file = io.BytesIO()
    soundfile.write(file, noise[:44_100, 0], 44_100, format="AIFF")  # which browsers do not play
    short = session.uploaded_recording(task, "short.aiff", file.getvalue())
    assert len(soundfile.read(io.BytesIO(short.data))[0]) == 44_100


def test_bands_stand_where_the_audio_has_them(mini):
    hertz = session.mel_frequencies(mini)
    assert (
        len(hertz) == 64
        and (np.diff(hertz) > 0).all()
        and 80 < hertz[0] < 200
        and 17_000 < hertz[-1] < 19_500
    )


def test_prompts_as_published_are_zero_shot(task):
    prompts = session.fill_template(task.model.prompt, task.class_names)
    expected = predict(ZeroShot(task.model, task.class_names), task.test.features)
    assert torch.allclose(session.prompt_logits(task, prompts), expected, atol=1e-4)
    ids, mask = task.model.tokenize(prompts)
    assert session.count_tokens(prompts) == mask.sum(1).tolist()
    assert session.count_tokens(["a " * 60]) == [62]


@pytest.mark.parametrize(
    ("template", "names", "reason"),
    [
        ("a dog", ["a", "b"], "needs {} once"), ("{} {}", ["a", "b"], "needs {} once"),
        ("{", ["a", "b"], "needs {} once"), ("{0}", ["a", "b"], "needs {} once"),
        ("{}", ["a", " "], "class 2 has no name"), ("{}", ["a", "A "], "two classes"),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be(template, names, reason):
    with pytest.raises(ValueError, match=reason):
        session.fill_template(template, names)


def test_verdicts_confusion_and_mistakes():
    logits, labels = (
        torch.tensor([[3.0, 1, 0], [0, 2, 9], [4, 0, 5], [1, 0, 0]]),
        torch.tensor([0, 1, 0, 2]),
    )
    answer = session.verdicts({"palm": logits[0]}, ["a", "b", "c"]).loc["palm"]
    p = torch.softmax(logits[0], 0)
    assert answer["guess"] == "a" and answer["margin"] == pytest.approx(
        float(p[0] - p[1]), abs=1e-6
    )
    assert [name for name, _ in answer["classes"]] == ["a", "b", "c"]
    assert session.confusion(logits, labels).tolist() == [[1, 0, 1], [0, 0, 1], [1, 0, 0]]
    wrong = session.worst_mistakes(logits, labels)
    assert wrong["clip"].tolist() == [1, 2, 3] and wrong["gap"].tolist() == [7, 1, 1]


def test_lambdas_by_hand_are_palm(task):
    palm = task.trained("palm").method
    text = session.mixed_text(palm, palm.lambdas.detach())
    assert torch.allclose(
        100 * task.features @ text.T, predict(palm, task.test.features), atol=1e-4
    )
    ends = session.mixed_text(palm, torch.tensor([[0.0] * 3, [1.0] * 3]))
    assert torch.allclose(ends[0], palm.f) and torch.allclose(
        ends[1], torch.nn.functional.normalize(palm.z, dim=-1)
    )


def test_the_plane_of_a_class_holds_its_logits(task):
    palm = task.trained("palm").method
    plane, text = (
        session.Plane.of_class(palm, 1),
        session.mixed_text(palm, torch.tensor([0.2, 0.9, 0.5])),
    )
    assert plane(palm.f)[1] == pytest.approx([1, 0], abs=1e-6)
    seen = plane(task.features) @ plane(text)[1]
    assert seen == pytest.approx((task.features @ text[1]).numpy(), abs=1e-5)


@pytest.mark.parametrize("kind", session.PROJECTIONS)
def test_projections_repeat_and_keep_neighbours(kind):
    rng = np.random.default_rng(0)
    centres = torch.tensor(
        np.repeat(3 * np.eye(3, 8), 10, axis=0) + rng.normal(0, 0.1, (30, 8)), dtype=torch.float32
    )
    places = session.project(centres, kind)
    assert places.shape == (30, 2) and np.array_equal(places, session.project(centres, kind))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(30)
    assert (distance.argmin(1) // 10 == np.arange(30) // 10).all()
    with pytest.raises(ValueError, match="no projection 'UMAP'"):
        session.project(centres, "UMAP")


@pytest.mark.slow
def test_mistakes_of_a_run(folder, mini, task, tmp_path):
    run = tmp_path / "runs" / "one"
    run_trials(make_grid(["zeroshot", "palm"], [folder], seeds=[0], shots=4, epochs=2), mini, run)
    logits = session.run_logits(task, run)
    assert list(logits) == ["zeroshot", "palm"]
    assert torch.allclose(
        logits["zeroshot"], predict(ZeroShot(mini, task.class_names), task.test.features), atol=1e-4
    )
    bench = widgets.worst_errors(folder, mini, run=run)
    bench.wait(60)
    assert [label for label, _ in bench.controls["Mistakes of"].options] == ["Zero-shot", "PALM"]
    assert words(bench.status) == "" and "not trained yet" in words(bench.answers)
    bench = widgets.worst_errors(folder, mini, run=tmp_path / "runs" / "two")
    bench.wait(60)
    assert "⚠ there are no rows in" in words(bench.status)
    run_trials(make_grid(["palm"], [folder], seeds=[0], shots=1, epochs=2), mini, run)
    with pytest.raises(ValueError, match="several settings there: shots=1; shots=4"):
        session.run_logits(task, run)


def copy_row(run, **changed):
    """A second row of PALM beside the one of a run, with its tensors."""
    (path,) = run.glob("rows/*/palm-*.json")
    row = json.loads(path.read_text()) | changed
    stem = path.stem.replace(path.stem.split("-")[-1], row["key"][:10])
    path.with_name(f"{stem}.json").write_text(json.dumps(row))
    tensors = path.with_suffix(".safetensors").read_bytes()
    path.with_name(f"{stem}.safetensors").write_bytes(tensors)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "palm.*seed 0: 2 rows of equal settings.*0123456789"),
        ({"dataset_digest": "fedcba9876"}, "rows of several versions of .*fedcba98"),
    ],
)
def test_no_row_is_taken_silently_of_several(folder, mini, task, tmp_path, changed, message):
    run = tmp_path / "runs" / "one"
    run_trials(make_grid(["palm"], [folder], seeds=[0], shots=1, epochs=1), mini, run)
    copy_row(run, key="0123456789", **changed)
    with pytest.raises(ValueError, match=message):
        session.run_logits(task, run)


def test_mistakes_of_transductive_methods_stand_beside_others(folder, mini, task, tmp_path):
    run = tmp_path / "runs" / "one"
    names = ["zeroshot", "palm", "transclip"]
    run_trials(make_grid(names, [folder], seeds=[0], shots=1, epochs=1), mini, run)
    assert list(session.run_logits(task, run)) == names
    run_trials(make_grid(["transclip"], [folder], seeds=[0], shots=2, epochs=1), mini, run)
    with pytest.raises(ValueError, match="several settings there: .*shots=1; .*shots=2"):
        session.run_logits(task, run)


def test_zero_shot_of_another_seed_serves(folder, mini, task, tmp_path):
    run = tmp_path / "runs" / "one"
    for seed in (1, 2):
        run_trials(make_grid(["zeroshot"], [folder], seeds=[seed]), mini, run)
    assert list(session.run_logits(task, run)) == ["zeroshot"]


# What is seen


def test_every_class_has_its_own_mark():
    assert len({tuple(mark_of(n).values()) for n in range(30)}) == 30
    assert "&lt;b&gt;" in confusion_table(np.eye(2, dtype=int), ["<b>", "c"])  # a name is no markup


WAYS = {  # another value than a control has, in its own words
    "Dropdown": lambda c: c.options[(c.index + 1) % len(c.options)],
    "Select": lambda c: c.options[(c.index + 1) % len(c.options)],
    "SelectionSlider": lambda c: c.options[c.index - 1],
    "IntSlider": lambda c: c.value - 1,
    "FloatSlider": lambda c: 1.0 if c.value < 0.5 else 0.0,
    "BoundedIntText": lambda c: c.value + 1,
    "Text": lambda c: c.value + " of thunder",
    "Checkbox": lambda c: not c.value,
}


def use(bench, label):
    control = bench.controls[label]
    if isinstance(control, ipywidgets.Button):
        return control.click()
    value = WAYS[type(control).__name__](control)
    control.value = value[1] if isinstance(value, tuple) else value


FIRST = {
    "As published": "Template",
    "Reset to learned": "λ",
    "Keep": "Train",
}  # what gives a button its work


@pytest.mark.slow
@pytest.mark.parametrize("bench", SIX, indirect=True)
def test_no_control_is_dead(bench):
    for label, control in bench.controls.items():
        assert control.description and type(control).__module__.startswith(
            "ipywidgets"
        )  # named, and of the keyboard
        if label in ("Dataset", "Fold", "Stop", "Train the rest"):
            continue  # tests of their own
        if label in FIRST:
            use(bench, FIRST[label])
        if label == "Mistakes":
            bench.controls["True class"].value = -1
        bench.wait(60)
        assert not control.disabled, label
        before = others(bench, control)
        use(bench, label)
        bench.wait(60)
        assert others(bench, control) != before, f"{label} does nothing"
        if label == "Method":
            control.value = "palm"  # others may have no learning rate and no epochs
        assert "⚠" not in bench.status.value, (label, words(bench.status))


@pytest.mark.parametrize("bench", SIX, indirect=True)
def test_another_dataset_and_one_that_is_not_there(bench, folder, tmp_path):
    bench.choose(
        bench.dataset, [*bench.dataset.options, ("nowhere", str(tmp_path / "nowhere"))], folder
    )
    bench.dataset.value = str(tmp_path / "nowhere")
    bench.wait(60)
    assert "⚠ there is no dataset folder" in words(bench.status)
    assert bench.dataset.value == folder and bench.body.layout.display == "", (
        "what was open before is still there"
    )
    assert bench.fold.disabled and bench.fold.label == "–"  # one split


def test_a_fold_is_chosen(folder, mini, tmp_path):
    (tmp_path / "csv_files").mkdir()
    (tmp_path / "audios").symlink_to(f"{folder}/audios")
    for fold in (1, 2):
        for split in ("train", "test"):
            text = Path(folder, f"{split}.csv").read_text()
            (tmp_path / "csv_files" / f"{split}_{fold}.csv").write_text(
                text if fold == 1 else text.rsplit("\n", 1)[0]
            )
    bench = widgets.prompt_bench(str(tmp_path), mini)
    bench.wait(60)
    assert (bench.fold.value, bench.fold.disabled) == (1, False) and "15 test clips" in words(
        bench.score
    )
    bench.fold.value = 2
    bench.wait(60)
    assert "14 test clips" in words(bench.score)


def test_a_dataset_that_is_given_and_not_there(tmp_path, mini):
    bench = widgets.listen(str(tmp_path / "nowhere"), mini)
    bench.wait(60)
    assert "⚠ there is no dataset folder" in words(bench.status)
    assert (
        bench.dataset.value is None and bench.body.layout.display == "none"
    )  # any can be chosen, that one too
    bench.input._handle_custom_msg({"name": "x.wav"}, [memoryview(b"1")])
    assert "no dataset is open" in words(bench.status)


@pytest.mark.slow
@one("listen")
def test_own_recordings(bench):
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000, format="WAV")
    before = bench.pictures.value
    bench.input._handle_custom_msg({"name": "mine <1>.wav"}, [memoryview(file.getvalue())])
    assert bench.pictures.value != before and "mine <1>.wav , a recording of yours" in words(
        bench.answers
    )
    assert "data:audio/wav" in bench.player.value and words(bench.status) == ""
    seen = bench.answers.value
    silent = io.BytesIO()
    soundfile.write(silent, np.zeros(16_000), 16_000, format="WAV")
    wrong = {
        b"": "is empty",
        b"no sound at all": "cannot be decoded",
        silent.getvalue(): "is silent",
    }
    for data, reason in wrong.items():
        bench.input._handle_custom_msg({"name": "mine.wav"}, [memoryview(data)])
        assert words(bench.status).startswith("⚠ mine.wav") and reason in words(bench.status)
    assert bench.answers.value == seen
    bench.controls["Class"].value = 1
    assert "true class:  rain" in words(bench.answers) and words(bench.status) == ""


class Toy:
    """A model without PENGI's input image and tokens, at another rate, length and width."""

    name, sample_rate, clip_seconds, dim = "toy", 16_000, 2.0, 48
    logit_scale, prompt, note = 10.0, "a {}", "toy"
    device, dtype = torch.device("cpu"), torch.float32

    def encode_audio(self, waveforms):
        assert waveforms.shape[1] == 32_000
        return self.project(waveforms.abs().log1p())

    def encode_text(self, prompts):
        return self.project(torch.tensor([[*p.encode(), *[0] * 64][:64] for p in prompts]).float())

    def project(self, x):
        weight = torch.randn(x.shape[1], self.dim, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.normalize(x @ weight, dim=-1)

    def digest(self):
        return "toy"


@pytest.mark.slow
def test_another_model_than_pengi(folder):
    listen, prompts = widgets.listen(folder, Toy()), widgets.prompt_bench(folder, Toy())
    for bench in (listen, prompts):
        bench.wait(60)
    assert len(listen.clip.waveform) == 32_000 and listen.clip.log_mel is None
    assert "image" in listen.pictures.value and "PALM" in words(listen.answers)
    assert "COOP" in words(listen.status)  # which needs a text encoder that takes embeddings
    assert prompts.template.value == "a {}" and "tokens" not in words(prompts.lines)
    assert "accuracy" in words(prompts.score) and words(prompts.note) == "toy"


@one("prompt_bench")
def test_bad_prompts_are_shown_in_the_widget(bench):
    name = bench.names.children[0]
    name.value = "x y " * 30
    assert "⚠" in words(bench.status) and "the text encoder takes 40" in words(bench.status)
    assert (
        "⚠" in words(bench.lines) and words(bench.score) == ""
    )  # no number that belongs to other words
    name.value = ""
    assert "class 1 has no name" in words(bench.status)
    bench.controls["As published"].click()
    assert (
        words(bench.status) == ""
        and "accuracy" in words(bench.score)
        and "of 40" in words(bench.lines)
    )


@pytest.mark.parametrize("stated", [None, 0.3])
def test_the_bench_starts_with_the_models_own_learning_rate(stated, folder):
    model = WordModel()
    model.defaults = {"lr": stated} if stated else None
    made = widgets.few_shot_bench(folder, model)
    made.wait(60)
    rate = made.controls["Learning rate"]
    assert words(made.status) == "" and rate.value == (stated or 0.05)
    assert ("PENGI's rate" in words(made.summary)) == (stated is None)
    rate.value = 0.1
    assert "PENGI's rate" not in words(made.summary)


@pytest.mark.slow
@one("few_shot_bench")
def test_training_is_stopped_kept_and_diverges_in_the_widget(bench, monkeypatch):
    paused, go = threading.Event(), threading.Event()

    def train(task, name, on_progress, on_epoch, **settings):
        run = session.Run(name, settings, None)
        for _ in range(9):
            run.losses.append(1.0)
            run.accuracies.append(0.5)
            on_epoch(run)
            paused.set()
            go.wait(10)

    with monkeypatch.context() as patch:
        patch.setattr(session, "train", train)
        bench.controls["Train"].click()
        assert (
            paused.wait(10)
            and bench.controls["Train"].disabled
            and not bench.controls["Stop"].disabled
        )
        assert "accuracy 0.500, epoch: 1 of 50" in words(bench.status)
        bench.controls["Stop"].click()
        assert words(bench.status) == "stopping ..."
        go.set()
        bench.wait(10)
    assert words(bench.status) == "stopped" and "2 of 50" in words(bench.runs)
    assert not bench.controls["Train"].disabled and bench.controls["Stop"].disabled
    bench.controls["Keep"].click()
    assert "kept" in words(bench.runs) and bench.controls["Keep"].disabled

    class Broken(PALM):
        def __init__(self, model, class_names, seed=0):
            super().__init__(model, class_names, seed=seed, init="nothing")

    monkeypatch.setitem(METHODS, "palm", Broken)
    bench.controls["Train"].click()
    bench.wait(10)
    assert "⚠ init='nothing': use published" in words(bench.status)


@one("worst_errors")
def test_what_was_stopped_can_go_on(bench, monkeypatch):
    """Methods that a stop has left out are trained by a button, which can be pressed only then."""
    button, trained = bench.controls["Train the rest"], bench.task.trained
    assert button.disabled and len(bench.methods) == 4

    def stopped_at_coop(name, on_progress):
        if name == "coop":
            bench.stop()
            on_progress()
        return trained(name, on_progress)

    with monkeypatch.context() as patch:
        patch.setattr(bench.task, "trained", stopped_at_coop)
        bench.reopen()
        bench.wait(60)
    assert (
        words(bench.status) == "stopped"
        and list(bench.methods) == ["zeroshot", "palm"]
        and not button.disabled
    )
    assert words(bench.answers).count("not trained yet") == 2
    button.click()
    bench.wait(60)
    assert words(bench.status) == "" and len(bench.methods) == 4 and button.disabled
    assert "not trained yet" not in words(bench.answers)


STOPPED = [("lambda_bench", "λ"), ("embedding_map", "Projection")]


@pytest.mark.parametrize(("bench", "label"), STOPPED, indirect=["bench"])
def test_what_was_stopped_before_anything_was_shown(bench, label, monkeypatch):
    def stopped(name, on_progress):
        bench.stop()
        on_progress()

    with monkeypatch.context() as patch:
        patch.setattr(bench.task, "trained", stopped)
        bench.reopen()
        bench.wait(60)
    assert (
        words(bench.status) == "stopped" and bench.scatter.points == []
    )  # nothing of another dataset stays
    use(bench, label)
    bench.wait(60)
    assert words(bench.status) == "" and len(bench.scatter.points) == 18


@one("embedding_map")
def test_points_play_their_clips(bench, monkeypatch):
    sent = []
    monkeypatch.setattr(
        bench.scatter, "send", lambda content, buffers=None: sent.append((content, buffers))
    )
    clip = bench.scatter.points[3]
    bench.scatter._handle_custom_msg({"clip": clip["clip"]}, [])
    (content, (data,)) = sent[0]
    assert (
        content == {"clip": 3, "type": "audio/wav"}
        and data == Path(bench.task.test.paths[3]).read_bytes()
    )
    assert (
        bench.task.clip_names[3] in clip["text"]
        and [p["clip"] for p in bench.scatter.points[-3:]] == [-1] * 3
    )
    assert [p["name"] for p in bench.scatter.points[-3:]] == bench.task.class_names
    monkeypatch.setattr(
        bench, "task", replace(bench.task, test=replace(bench.task.test, paths=["gone.wav"] * 15))
    )
    bench.scatter._handle_custom_msg({"clip": 3}, [])
    assert words(bench.status) == "⚠ gone.wav: cannot be read (No such file or directory)"


# Every method

ON_ONE_MODEL = [name for name, cls in METHODS.items() if not (cls.tunes_audio or cls.needs_pair)]


@pytest.mark.slow
@one("few_shot_bench")
def test_every_method_that_learns_is_trained_in_the_bench(bench):
    """With curves if it has epochs, and with a level if it has none."""
    choice = bench.controls["Method"]
    expected = [name for name in ON_ONE_MODEL if METHODS[name].learns]
    assert [name for _, name in choice.options] == expected
    for name in expected:
        cls = METHODS[name]
        choice.value = name
        sliders = [bench.controls[label].disabled for label in ("Learning rate", "Epochs")]
        assert sliders == [cls.own_fit] * 2, name
        assert ("all test clips" in bench.summary.value) == cls.transductive
        bench.controls["Train"].click()
        bench.wait(400)
        assert not bench._thread.is_alive() and words(bench.status) == "", name
        run = bench.now
        assert run.name == name and len(run.accuracies) == max(len(run.losses), 1)
        logits = predict(run.method, bench.task.test.features)
        assert run.accuracies[-1] == bench.task.accuracy(logits)
        assert len(run.losses) == 2 or cls.own_fit
        assert bool(run.lambdas) == isinstance(run.method, PALM)
        line = words(bench.runs)
        assert cls.label in line and ("(transductive)" in line) == cls.transductive
        assert f"accuracy {run.accuracies[-1]:.3f}" in bench.curves.value


@pytest.mark.slow
@one("listen")
def test_every_method_answers(bench):
    """Each is added, shown, and asked for a test clip and for a recording of one's own."""
    choice = bench.controls["Add a method"]
    names = [name for _, name in choice.options if name]
    assert {*names} == {*ON_ONE_MODEL} - {"zeroshot", "palm", "coop", "cocoop"}
    for name in names:
        choice.value = name
        bench.wait(120)
        assert words(bench.status) == "" and METHODS[name].label in words(bench.answers), name
    assert [*bench.methods] == ["zeroshot", "palm", "coop", "cocoop", *names]
    clip = bench.clip_choice.value
    for name, method in bench.methods.items():
        expected = predict(method, bench.task.test.features)[clip]
        assert torch.allclose(bench.logits(name), expected, atol=1e-4), name
    assert "TransCLIP, Text mixture depend on all test clips" in words(bench.answers)
    data = Path(bench.task.test.paths[clip]).read_bytes()
    bench.input._handle_custom_msg({"name": "mine.wav"}, [memoryview(data)])
    assert words(bench.status) == "" and "a recording of yours" in words(bench.answers)
    for name in names:
        assert METHODS[name].label in words(bench.answers), name


@one("worst_errors")
def test_mistakes_of_an_added_method(bench):
    bench.controls["Add a method"].value = "transclip"
    bench.wait(60)
    assert "TransCLIP" in [label for label, _ in bench.controls["Mistakes of"].options]
    bench.controls["Mistakes of"].value = "transclip"
    assert words(bench.status) == "" and "clips" in words(bench.count)


@one("lambda_bench")
def test_lambdas_of_palm_and_of_solved_palm(bench):
    choice = bench.controls["Method"]
    assert [name for _, name in choice.options] == ["palm", "solved-palm"]
    choice.value = "solved-palm"
    bench.wait(60)
    method = bench.task.trained("solved-palm").method
    expected = bench.task.accuracy(predict(method, bench.task.test.features))
    assert words(bench.status) == "" and bench.learned_accuracy == expected


@one("listen")
def test_opening_takes_objects_out_of_garbage_collection(bench):
    """Or every tenth answer would take 0.4 s more."""
    assert gc.get_freeze_count() > 10_000
