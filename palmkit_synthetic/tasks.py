"""The default datasets: small tasks in the published layout, made at first use.

Their clips do not come from the sources of the pre-training corpus. Every named parameter of a
sound is outside of the range of training; rooms and noise are of another kind (`domain.TASK`);
instruments are other programs of the sound font, and the families share no recording; speakers
are other voices and say other sentences. What both share: the generators themselves, the recorded
drums, and espeak-ng's way of speaking.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from joblib import Parallel, delayed
from scipy import signal

from palmkit.endings import starting_workers
from palmkit.locks import make_folder, one_process
from palmkit.storage import atomic_write, cache_root, progress_bar
from palmkit.tables import SPLITS, DatasetError, write_split
from palmkit_synthetic import speech
from palmkit_synthetic.concepts import CONCEPTS, HELD_OUT
from palmkit_synthetic.domain import TASK, Domain
from palmkit_synthetic.draw import Draw
from palmkit_synthetic.dsp import SAMPLE_RATE
from palmkit_synthetic.finish import finish
from palmkit_synthetic.recipe import recipe

FOLDS = 2  # a clip is tested in fold 1 + its number modulo 2, and trained on in the other one
CLIPS_PER_CLASS = 40
RATE = 22_050  # Hz, half of the corpus's: nothing above 11 kHz, as in many published sets
SEED = 0


class TaskError(DatasetError):
    """An unknown task, or a folder that holds something else; the message says what to do."""


@dataclass(frozen=True)
class Task:
    """A dataset to be made.

    classes: the generator of each class's clips. seconds: of the shortest and the longest clip.
    folds: False for a single split, as in five of the paper's datasets: it tests on what would be
    fold 1. domain: how its clips were recorded.
    """

    kind: str
    classes: dict[str, Callable[[Draw], np.ndarray]]
    seconds: tuple[float, float]
    folds: bool = True
    domain: Domain = TASK


# The default datasets differ in how they were recorded, as published ones do.
CLOSE = replace(
    TASK, room_chance=0.2, wet=(0.05, 0.2), noise_chance=0.5, snr_db=(25.0, 45.0), dull_chance=0.0
)
OUTDOORS = replace(TASK, room_chance=0.1, noise_chance=1.0, snr_db=(3.0, 18.0))
TELEPHONE = replace(TASK, dull_chance=1.0, dull_hz=(2500.0, 4000.0), overload_chance=0.4)
HALL = replace(
    TASK, room_chance=1.0, reverb_seconds=(1.2, 2.6), wet=(0.4, 0.7), snr_db=(15.0, 30.0)
)


def concept_classes(*keys: str, **labels: str) -> dict[str, Callable[[Draw], np.ndarray]]:
    """Classes named as their concepts, or label="concept"; an underscore in a label is a space."""
    named = {key: key for key in keys}
    named |= {label.replace("_", " "): key for label, key in labels.items()}
    return {label: CONCEPTS[key].generate for label, key in named.items()}


def spoken_languages(*languages: str) -> dict[str, Callable[[Draw], np.ndarray]]:
    return {name: partial(speech.speaking, language=name) for name in languages}


def spoken_moods(language: str, *moods: str) -> dict[str, Callable[[Draw], np.ndarray]]:
    return {name: partial(speech.mood, name=name, language=language) for name in moods}


SOUND_EVENTS = (
    *("dog", "rooster", "cat", "crow", "chirping birds", "frog", "rain", "sea waves", "thunder"),
    *("crackling fire", "water drops", "crying baby", "footsteps", "door knock"),
    *("glass breaking", "clock tick", "helicopter", "chainsaw", "siren", "church bells"),
)
INSTRUMENTS = ("bass", "brass", "flute", "guitar", "piano", "organ", "reed", "string")
SCENES = ("beach", "city street", "forest", "restaurant", "train station", "office")
LANGUAGES = ("French", "German", "Spanish", "Russian", "Mandarin", "Hindi")
VOCAL_SOUNDS = {
    "laughter": "laughter",
    "sigh": "sigh",
    "cough": "coughing",
    "throat_clearing": "throat clearing",
    "sneeze": "sneezing",
    "sniff": "sniff",
}
MUSIC_STYLES = {
    "blues": "blues music",
    "classical": "classical music",
    "jazz": "jazz music",
    "hip_hop": "hip hop music",
    "metal": "metal music",
    "reggae": "reggae music",
}
TASKS: dict[str, Task] = {
    "SoundEvents": Task("sound event", concept_classes(*SOUND_EVENTS), (2.0, 3.0), False, OUTDOORS),
    "Instruments": Task("instrument", concept_classes(*INSTRUMENTS), (2.0, 3.0), domain=CLOSE),
    "Scenes": Task("scene", concept_classes(*SCENES), (2.5, 3.5)),
    "VocalSounds": Task(
        "vocal sound", concept_classes(**VOCAL_SOUNDS), (1.5, 2.5), domain=TELEPHONE
    ),
    "Languages": Task("language", spoken_languages(*LANGUAGES), (2.5, 3.5)),
    "MusicStyles": Task("music", concept_classes(**MUSIC_STYLES), (3.0, 4.0), domain=HALL),
    "SpanishDigits": Task("spoken word", concept_classes(*speech.DIGITS["Spanish"]), (1.0, 1.0)),
    "GermanEmotions": Task(
        "speech emotion", spoken_moods("German", "angry", "happy", "neutral", "sad"), (3.0, 4.0)
    ),
    "UnseenConcepts": Task(
        "held out of the corpus", concept_classes(*sorted(HELD_OUT)), (2.0, 3.0)
    ),
}
DEFAULT_TASKS = (
    *("SoundEvents", "Instruments", "Scenes", "VocalSounds", "MusicStyles", "GermanEmotions"),
)


def task_clip(task: str, label: str, index: int, seed: int = SEED) -> np.ndarray:
    """[samples] float32 at 44.1 kHz: clip `index` of a class, before it is halved to RATE."""
    settings = TASKS[task]
    rng = np.random.default_rng([seed, index, zlib.crc32(f"{task}/{label}".encode())])
    draw = Draw(rng, settings.domain, rng.uniform(*settings.seconds))
    return finish(draw, settings.classes[label](draw))


def build_task(name: str, root=None, processes: int = 2) -> Path:
    """The folder of one task, made if it is not there yet.

    `load_dataset(build_task("Instruments"), fold=1)` loads it.
    """
    return build_tasks([name], root, processes)[0]


def build_tasks(names=DEFAULT_TASKS, root=None, processes: int = 2, on_class=None) -> list[Path]:
    """The folders of several tasks below `root`, made where they are missing.

    root: None is a folder of this version in the cache.
    on_class: called with (classes done, classes to do) instead of a progress bar. An exception
        that it raises ends the work there.

    Raises TaskError for an unknown name or a folder of another version.
    """
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise TaskError(f"there is no task {', '.join(unknown)}: choose of {', '.join(TASKS)}")
    root = Path(root) if root else cache_root() / "mini-tasks" / version()
    missing = [name for name in names if not is_built(root / name)]
    classes = sum(len(TASKS[name].classes) for name in missing)
    bar = progress_bar(0 if on_class else classes * CLIPS_PER_CLASS, "default datasets", "clip")
    done = 0
    if on_class and classes:
        on_class(0, classes)

    def count(clips: int) -> None:
        nonlocal done
        done += 1
        bar.update(clips)
        if on_class:
            on_class(done, classes)

    with bar:
        for name in missing:
            _build(root / name, name, processes, count)
    return [root / name for name in names]


def _build(folder: Path, name: str, processes: int, count: Callable[[int], None]) -> None:
    """Make one task, aside, while no other process makes it.

    count: called with the number of clips after each class.
    """
    with one_process(folder, name):
        if is_built(folder):  # by another process, meanwhile
            for _ in TASKS[name].classes:
                count(CLIPS_PER_CLASS)
            return
        _clear_unfinished(folder)
        make_folder(folder, lambda aside: _write_task(aside, name, processes, count))


def _clear_unfinished(folder: Path) -> None:
    """Remove what earlier versions left when they were stopped. Raises TaskError for other files.

    A folder without `provenance.json` is unfinished.
    """
    if not folder.exists():
        return
    own = {"audios", "csv_files", "train.csv", "test.csv", "provenance.json"}
    if other := sorted({path.name for path in folder.iterdir()} - own):
        raise TaskError(
            f"{folder} holds {other[0]!r}, which is no part of the task: choose another root"
        )
    shutil.rmtree(folder)


def _write_task(folder: Path, name: str, processes: int, count) -> None:
    """The clips of a task, a class a job, and its tables."""
    jobs = [(folder, name, label) for label in TASKS[name].classes]
    with starting_workers() if processes > 1 else contextlib.nullcontext():
        made = Parallel(processes, return_as="generator_unordered")(
            delayed(write_class)(*job) for job in jobs
        )
    try:
        for clips in made:
            count(clips)
    finally:
        with warnings.catch_warnings(action="ignore"):  # joblib's, if not all was made
            made.close()
    write_tables(folder, name)


@functools.cache  # source files are read and parsed; within a process they do not change
def version() -> str:
    """A digest of all that decides what the tasks hold: their clips' recipe, and this file."""
    return recipe(TASK, [Path(__file__)])


def provenance() -> dict:
    """What a task's folder was made by; equal provenance, equal clips."""
    return {
        "version": version(),
        "seed": SEED,
        "clips_per_class": CLIPS_PER_CLASS,
        "rate": RATE,
        "folds": FOLDS,
    }


def is_built(folder: Path) -> bool:
    """Whether a folder holds this very task, whole.

    Raises TaskError if it holds another version of it.
    """
    path = folder / "provenance.json"  # written last
    if not path.is_file():
        return False
    if json.loads(path.read_text(encoding="utf-8")) != provenance():
        raise TaskError(
            f"{folder} holds another version of the task: delete it or choose another root"
        )
    return True


def clip_path(label: str, index: int) -> str:
    return f"audios/{label.replace(' ', '_')}_{index:02d}.flac"


def write_class(folder: Path, task: str, label: str) -> int:
    """All clips of one class, as 16-bit FLAC; their number."""
    (folder / "audios").mkdir(parents=True, exist_ok=True)
    for index in range(CLIPS_PER_CLASS):
        clip = signal.resample_poly(task_clip(task, label, index), 1, SAMPLE_RATE // RATE)
        flac = io.BytesIO()  # libsndfile cannot open every name in every locale
        soundfile.write(flac, np.clip(clip, -1, 1), RATE, subtype="PCM_16", format="FLAC")
        (folder / clip_path(label, index)).write_bytes(flac.getvalue())
    return CLIPS_PER_CLASS


def write_tables(folder: Path, task: str) -> None:
    """The tables of the folds or of the single split, and then what the folder was made by."""
    for fold in range(1, FOLDS + 1) if TASKS[task].folds else [1]:
        rows = {split: [] for split in SPLITS}
        for label in TASKS[task].classes:
            for index in range(CLIPS_PER_CLASS):
                split = "test" if index % FOLDS + 1 == fold else "train"
                rows[split].append((clip_path(label, index), label))
        for split in SPLITS:
            write_split(folder, split, fold if TASKS[task].folds else None, rows[split])
    atomic_write(folder / "provenance.json", json.dumps(provenance(), indent=1))
