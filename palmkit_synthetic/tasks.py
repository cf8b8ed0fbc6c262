"""The default datasets: small tasks in the published layout, made at first use from other sources than the corpus.

What is other: every named parameter of a sound lies outside of the range of training, rooms and noise are of another
kind (`domain.TASK`); instruments are other programs of the sound font, and of the families no recording is shared;
speakers are other voices and say other sentences. What is shared: the generators themselves, the recorded drums, and
espeak-ng's way of speaking.
"""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from joblib import Parallel, delayed
from scipy import signal

from palmkit.storage import atomic_write, cache_root, progress_bar
from palmkit_synthetic import speech
from palmkit_synthetic.clips import recipe
from palmkit_synthetic.concepts import CONCEPTS, HELD_OUT
from palmkit_synthetic.domain import TASK
from palmkit_synthetic.draw import Draw
from palmkit_synthetic.dsp import SAMPLE_RATE
from palmkit_synthetic.finish import finish

FOLDS = (
    2  # a clip's fold is its number modulo 2; a fold is tested on itself and trained on the other
)
CLIPS_PER_CLASS = 40
RATE = 22_050  # Hz, half of the corpus's: nothing above 11 kHz, as in many published sets
SEED = 0


class TaskError(ValueError):
    """A task that is not known, or a folder that holds something else; the message says what to do."""


@dataclass(frozen=True)
class Task:
    """A dataset to be made. classes: label and the generator of its clips. seconds: shortest and longest clip. A task
    that has no folds is split once, as five of the paper's datasets are: it is tested on what would be fold 1."""

    kind: str
    classes: dict[str, Callable[[Draw], np.ndarray]]
    seconds: tuple[float, float]
    folds: bool = True


def of_concepts(*keys: str, **labels: str) -> dict:
    """Classes called as their concepts, or label="key of the concept" (an underscore in a label is a space)."""
    named = {key: key for key in keys} | {
        label.replace("_", " "): key for label, key in labels.items()
    }
    return {label: CONCEPTS[key].generate for label, key in named.items()}


SOUND_EVENTS = (
    *(
        "dog",
        "rooster",
        "cat",
        "crow",
        "chirping birds",
        "frog",
        "rain",
        "sea waves",
        "thunder",
        "crackling fire",
    ),
    *(
        "water drops",
        "crying baby",
        "footsteps",
        "door knock",
        "glass breaking",
        "clock tick",
        "helicopter",
        "chainsaw",
    ),
    *("siren", "church bells"),
)
TASKS: dict[str, Task] = {
    "SoundEvents": Task("sound event", of_concepts(*SOUND_EVENTS), (2.0, 3.0), folds=False),
    "Instruments": Task(
        "instrument",
        of_concepts("bass", "brass", "flute", "guitar", "piano", "organ", "reed", "string"),
        (2.0, 3.0),
    ),
    "Scenes": Task(
        "scene",
        of_concepts("beach", "city street", "forest", "restaurant", "train station", "office"),
        (2.5, 3.5),
    ),
    "VocalSounds": Task(
        "vocal sound",
        of_concepts(
            laughter="laughter", sigh="sigh", cough="coughing", throat_clearing="throat clearing"
        )
        | of_concepts(sneeze="sneezing", sniff="sniff"),
        (1.5, 2.5),
    ),
    "Languages": Task(
        "language",
        {
            language: partial(speech.speaking, language=language)
            for language in ("French", "German", "Spanish", "Russian", "Mandarin", "Hindi")
        },
        (2.5, 3.5),
    ),
    "MusicStyles": Task(
        "music",
        of_concepts(blues="blues music", classical="classical music", jazz="jazz music")
        | of_concepts(hip_hop="hip hop music", metal="metal music", reggae="reggae music"),
        (3.0, 4.0),
    ),
    "SpanishDigits": Task("spoken word", of_concepts(*speech.DIGITS["Spanish"]), (1.0, 1.0)),
    "GermanEmotions": Task(
        "speech emotion",
        {
            name: partial(speech.mood, name=name, language="German")
            for name in ("angry", "happy", "neutral", "sad")
        },
        (3.0, 4.0),
    ),
    "UnseenConcepts": Task("held out of the corpus", of_concepts(*sorted(HELD_OUT)), (2.0, 3.0)),
}
DEFAULT_TASKS = (
    "SoundEvents",
    "Instruments",
    "Scenes",
    "VocalSounds",
    "MusicStyles",
    "GermanEmotions",
)


def task_clip(task: str, label: str, index: int, seed: int = SEED) -> np.ndarray:
    """[samples] float32 at 44.1 kHz: clip `index` of a class, before it is halved to the file's rate."""
    given = TASKS[task]
    rng = np.random.default_rng([seed, index, zlib.crc32(f"{task}/{label}".encode())])
    draw = Draw(rng, TASK, rng.uniform(*given.seconds))
    return finish(draw, given.classes[label](draw))


def build_task(name: str, root=None, processes: int = 2) -> Path:
    """The folder of one task, made if it is not there yet: `load_dataset(build_task("Instruments"), fold=1)`."""
    return build_tasks([name], root, processes)[0]


def build_tasks(names=DEFAULT_TASKS, root=None, processes: int = 2, on_class=None) -> list[Path]:
    """The folders of several tasks below `root` (without one, in the kit's cache, beside other versions).

    on_class: called with (classes done, classes to do) instead of a progress bar; what it raises ends the work there.
    """
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise TaskError(f"there is no task {', '.join(unknown)}; there are {', '.join(TASKS)}")
    root = Path(root) if root else cache_root() / "mini-tasks" / version()
    missing = [name for name in names if not is_built(root / name)]
    jobs = [(root / name, name, label) for name in missing for label in TASKS[name].classes]
    made = Parallel(processes, return_as="generator_unordered")(
        delayed(write_class)(*job) for job in jobs
    )
    with progress_bar(
        0 if on_class else len(jobs) * CLIPS_PER_CLASS, "default datasets", "clip"
    ) as bar:
        try:
            if on_class and jobs:
                on_class(0, len(jobs))
            for n, done in enumerate(made, 1):
                bar.update(done)
                if on_class:
                    on_class(n, len(jobs))
        finally:
            with warnings.catch_warnings(action="ignore"):  # of joblib, where not all was made
                made.close()
    for name in missing:
        write_tables(root / name, name)
    return [root / name for name in names]


@functools.cache  # source files are read and parsed; within a process they do not change
def version() -> str:
    """A digest of all that decides what the tasks hold: the recipe of their clips, and this file."""
    return hashlib.sha256(recipe(TASK).encode() + Path(__file__).read_bytes()).hexdigest()[:16]


def provenance() -> dict:
    """What a task's folder was made by; equal provenance, equal clips."""
    return dict(
        version=version(), seed=SEED, clips_per_class=CLIPS_PER_CLASS, rate=RATE, folds=FOLDS
    )


def is_built(folder: Path) -> bool:
    """Whether a folder holds this very task, whole. Raises TaskError if it holds another version of it."""
    path = folder / "provenance.json"  # written last
    if not path.is_file():
        return False
    if json.loads(path.read_text()) != provenance():
        raise TaskError(
            f"{folder} holds another version of the task: delete it or choose another root"
        )
    return True


def clip_path(label: str, index: int) -> str:
    return f"audios/{label.replace(' ', '_')}_{index:02d}.flac"


def write_class(folder: Path, task: str, label: str) -> int:
    """All clips of one class, as 16-bit FLAC; says how many."""
    (folder / "audios").mkdir(parents=True, exist_ok=True)
    for index in range(CLIPS_PER_CLASS):
        clip = signal.resample_poly(task_clip(task, label, index), 1, SAMPLE_RATE // RATE)
        soundfile.write(
            folder / clip_path(label, index), np.clip(clip, -1, 1), RATE, subtype="PCM_16"
        )
    return CLIPS_PER_CLASS


def write_tables(folder: Path, task: str) -> None:
    """The CSVs of the folds or of the one split (path, classname), and then what the folder was made by."""
    for fold in range(1, FOLDS + 1) if TASKS[task].folds else [1]:
        tables = {"train": ["path,classname"], "test": ["path,classname"]}
        for label in TASKS[task].classes:
            for index in range(CLIPS_PER_CLASS):
                part = "test" if index % FOLDS + 1 == fold else "train"
                tables[part].append(f"{clip_path(label, index)},{label}")
        for part, lines in tables.items():
            name = f"csv_files/{part}_{fold}.csv" if TASKS[task].folds else f"{part}.csv"
            atomic_write(folder / name, "\n".join(lines) + "\n")
    atomic_write(folder / "provenance.json", json.dumps(provenance(), indent=1))
