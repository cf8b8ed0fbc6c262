"""New recordings of which more is known than the class: mixtures, rooms, longer clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from scipy import signal

from palmkit.audio import decode, read_bytes
from palmkit.data import Dataset
from palmkit.sound_files import open_sound
from palmkit.tables import write_split
from palmkit.training import predict
from palmkit_synthetic.clips import draw_clip
from palmkit_synthetic.domain import TASK
from palmkit_synthetic.dsp import SAMPLE_RATE
from palmkit_synthetic.tasks import CLIPS_PER_CLASS, RATE, TASKS, task_clip

PEAK = 0.9
SECONDS = 2.5  # of a recording with known conditions


def mix(first, second, ratio_db: float) -> np.ndarray:
    """Two waveforms at once, the first `ratio_db` above the second in mean power.

    [samples] of the first; the second is repeated or cut to its length. Its largest magnitude is
    0.9. Raises ValueError for a silent waveform.
    """
    first = np.asarray(first, float)
    second = np.resize(np.asarray(second, float), len(first))
    power = np.mean(first**2), np.mean(second**2)
    if not min(power) > 0:
        raise ValueError("a silent sound cannot be mixed at a ratio")
    both = first / np.sqrt(power[0]) + second / np.sqrt(power[1]) * 10 ** (-ratio_db / 20)
    return PEAK * both / np.abs(both).max()


def write_mixtures(folder, task: str, pairs: int, ratios_db, seed: int = 0) -> pd.DataFrame:
    """Write mixtures of two classes of a generated dataset, as its own clips are written.

    The sounds are new: generated as those of the dataset, with numbers that it does not use. A
    pair is of two classes drawn at random, and is mixed at each ratio. One line for each mixture:
    path, pair, first, second (class names) and ratio_db (of the first over the second).
    """
    folder = Path(folder)
    generator = np.random.default_rng(seed)
    names = [*TASKS[task].classes]
    lines = []
    for pair in range(pairs):
        chosen = [names[n] for n in generator.choice(len(names), 2, replace=False)]
        numbers = CLIPS_PER_CLASS + 2 * pair + np.arange(2)
        sounds = [
            signal.resample_poly(task_clip(task, name, int(n)), 1, SAMPLE_RATE // RATE)
            for name, n in zip(chosen, numbers, strict=True)
        ]
        for ratio in ratios_db:
            path = folder / f"{pair:03d}_{ratio:+g}.flac"
            soundfile.write(path, mix(*sounds, ratio), RATE, subtype="PCM_16")
            lines.append((str(path), pair, *chosen, ratio))
    return pd.DataFrame(lines, columns=["path", "pair", "first", "second", "ratio_db"])


def guess_mixtures(fitted, mixtures: pd.DataFrame, features) -> pd.DataFrame:
    """One line for each mixture and method: the mixture's, with method, seed and the guess.

    fitted: {(method, seed): a fitted method}. features: of the mixtures, [n, dim]. Columns added:
    confidence (of the guess), and is_first, is_second and neither: what the guess names.
    """
    frames = []
    for (name, seed), method in fitted.items():
        shares = predict(method, features).double().softmax(1)
        guess = np.array(method.class_names)[shares.argmax(1).numpy()]
        frame = mixtures.assign(method=name, seed=seed, confidence=shares.amax(1).numpy())
        frame["is_first"] = guess == mixtures["first"].to_numpy()
        frame["is_second"] = guess == mixtures["second"].to_numpy()
        frames.append(frame.assign(neither=~(frame["is_first"] | frame["is_second"])))
    return pd.concat(frames, ignore_index=True)


def write_recordings(folder, classes, clips: int, first: int = CLIPS_PER_CLASS) -> pd.DataFrame:
    """Write new recordings of sound events whose conditions are known.

    classes: names of concepts, such as the classes of SoundEvents. clips: of each class, numbered
    from `first` on. One line for each: path, class_name, and room: whether it was recorded in a
    room (with reverberation) or close.
    """
    folder = Path(folder)
    lines = []
    for name in classes:
        for number in range(first, first + clips):
            waveform, parameters = draw_clip(name, number, domain=TASK, seconds=SECONDS)
            path = folder / f"{len(lines):04d}.flac"
            soundfile.write(path, waveform, SAMPLE_RATE, subtype="PCM_16")
            lines.append((str(path), name, "reverb" in parameters))
    return pd.DataFrame(lines, columns=["path", "class_name", "room"])


def write_joined(folder, data: Dataset, clips: int = 6) -> Path:
    """Write a dataset of longer recordings: each is `clips` of one class, one after the other.

    Train and test stay apart; the dataset has a single split. Every second clip of a class starts a
    recording, and the first clips follow the last, so recordings share sounds. The sample rate is
    that of the first clip. Returns the folder. Raises AudioError for a clip that cannot be used.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    first = data.train["path"].iloc[0]
    with open_sound(read_bytes(first), first) as sound:
        rate = sound.rate
    for split, frame in (("train", data.train), ("test", data.test)):
        written = []
        for name, group in frame.groupby("class_name"):
            sounds = [decode(read_bytes(path), path, rate).numpy() for path in group["path"]]
            for start in range(0, len(sounds), 2):
                joined = [sounds[(start + n) % len(sounds)] for n in range(clips)]
                path = f"{split}_{len(written):04d}.wav"
                soundfile.write(folder / path, np.concatenate(joined), rate)
                written.append((path, name))
        write_split(folder, split, None, written)
    return folder
