"""Files that cannot be used are found, and left out of a dataset before anything is drawn."""

from __future__ import annotations

import concurrent.futures
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import soundfile

from palmkit.audio import AudioError, file_digest
from palmkit.data import Dataset
from palmkit.sound_files import ffmpeg_version, scan
from palmkit.storage import cache_folder, progress_bar
from palmkit.store import TensorStore
from palmkit.tables import SPLITS, DatasetError

SCAN_VERSION = 1  # raise it when other files count as bad
UNUSABLE = 1e12  # a peak; full scale is 1, and the power of such samples overflows


def find_bad_files(paths, cache="default") -> dict[str, str]:
    """The files among `paths` that cannot be used, each with the reason.

    A file is read once, as a whole. The cache keeps which files are good.
    """
    paths = [str(path) for path in paths]
    decoders = {"libsndfile": soundfile.__libsndfile_version__, "ffmpeg": ffmpeg_version()}
    setting = {"version": SCAN_VERSION, **decoders}
    with TensorStore(cache_folder(cache), "scans", setting) as store:

        def examine(path: str) -> str:
            try:
                sha = file_digest(path)
                if sha in store:
                    return ""
                peak = scan(path).peak
            except AudioError as error:
                return str(error).removeprefix(f"{path}: ")
            if peak > UNUSABLE:
                return f"its peak is {peak:.3g}; its embedding would not be finite"
            store.put(sha, {"peak": np.array(peak)})
            return ""

        workers = min(8, os.cpu_count() or 1)
        bar = progress_bar(len(paths), "looking for bad files", "clip")
        with bar, concurrent.futures.ThreadPoolExecutor(workers) as pool:
            reasons = {}
            for path, reason in zip(paths, pool.map(examine, paths), strict=True):
                reasons[path] = reason
                bar.update()
    return {path: reason for path, reason in reasons.items() if reason}


def leave_out_bad_files(dataset: Dataset, cache="default") -> Dataset:
    """The dataset without its files that cannot be used; `left_out` names them.

    Raises DatasetError if a class has no clips then.
    """
    frames = {split: getattr(dataset, split) for split in SPLITS}
    paths = dict.fromkeys(pd.concat(frames.values())["path"])
    bad = find_bad_files(paths, cache)
    good = {split: frame[~frame["path"].isin(bad)] for split, frame in frames.items()}
    for split, frame in good.items():
        frame.attrs = dict(frames[split].attrs)
        if empty := sorted(set(dataset.class_names) - set(frame["class_name"])):
            raise DatasetError(
                f"{dataset.name}: without its bad files {split} has no clips of "
                f"{', '.join(empty)}; mend the files, see `palmkit check {dataset.root}`"
            )
    named = tuple(f"{dataset.relative(path)}: {reason}" for path, reason in sorted(bad.items()))
    return replace(dataset, **good, left_out=named)
