"""Splits of recordings: by their own columns, or made, stratified and with groups kept together."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array, eye_array, hstack, kron
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from palmkit.audio import file_digest
from palmkit.datasets.filenames import parse_file_name
from palmkit.datasets.recordings import Recordings, Split
from palmkit.tables import DatasetError

SEEDS_TRIED = 20  # until every class is in both parts of every fold; then the search is exact
SEARCH_SECONDS = 20
SINGLE_SPLIT_FOLDS = 4  # a single split tests on one of so many folds


# Groups.


def find_groups(
    recordings: Recordings, groups: str | None, column: str | None
) -> tuple[pd.Series, str]:
    """One label a clip, equal for clips that stay together; and how it was found.

    groups: a column, or a regular expression on paths. column: a column.
    """
    clips = recordings.clips
    if not column and (not groups or groups in clips):
        column = groups or "group"
    if column and column in clips:
        labels = _read_group_column(recordings, column)
        how = recordings.grouped_by or f"the column `{column}`"
    elif groups:
        labels, how = _match_groups(clips, groups), f"the regular expression {groups}"
    else:
        labels, how = _groups_by_name(clips)
    contents = [file_digest(recordings.base / path) for path in clips["path"]]
    return _join_equal_files(labels, contents), how


def _read_group_column(recordings: Recordings, column: str) -> pd.Series:
    """A column of the CSV; DatasetError where a cell is empty."""
    labels = recordings.clips[column].astype(str)
    if (empty := labels.index[labels.str.strip() == ""]).size:
        raise DatasetError(
            f"{recordings.source}, row {empty[0]}: the column `{column}` is empty ({len(empty)} "
            "such rows): write what the clip belongs to, or a name of its own"
        )
    return labels


def _match_groups(clips: pd.DataFrame, groups: str) -> pd.Series:
    """The first group of a regular expression in each path."""
    try:
        labels = clips["path"].str.extract(re.compile(groups))[0]
    except (re.error, ValueError) as error:
        raise DatasetError(
            f"groups={groups!r} is no column and no regular expression with a group ({error}): "
            'give a column of the CSV, or an expression such as "([^/]+)_"'
        ) from error
    if labels.isna().any():
        without = clips["path"][labels.isna()]
        raise DatasetError(
            f"groups={groups!r} does not match {without.iloc[0]} ({len(without)} such files): "
            "change the expression, or rename the files"
        )
    return labels


def _groups_by_name(clips: pd.DataFrame) -> tuple[pd.Series, str]:
    """Speaker or recording where every file name tells it; else each file by itself."""
    parsed = [parse_file_name(path) for path in clips["path"]]
    for kind in ("speaker", "recording"):
        if all(kind in origin for origin in parsed):
            labels = [origin[kind] for origin in parsed]
            return pd.Series(labels, clips.index), f"{kind}s that file names tell"
    return clips["path"], "each file by itself"


def _join_equal_files(labels: pd.Series, contents: list[str]) -> pd.Series:
    """Make groups that share a file's bytes one group, named as the first of them."""
    group, names = pd.factorize(labels)
    content, _ = pd.factorize(np.asarray(contents))
    # A graph of groups and contents: a clip is an edge from its group to its content.
    size = len(names) + content.max() + 1
    edges = coo_array((np.ones(len(group)), (group, len(names) + content)), (size, size))
    _, component = connected_components(edges, directed=False)
    first = {}
    for number, name in enumerate(names):
        first.setdefault(component[number], name)
    return pd.Series([first[component[number]] for number in group], labels.index)


# Splits.


def own_splits(recordings: Recordings) -> list[Split] | None:
    """The splits that the recordings come with; None if they come with none.

    Raises DatasetError if a class lacks clips in one of them.
    """
    clips = recordings.clips
    if recordings.splits:
        splits = list(recordings.splits)
    elif "split" in clips:
        splits = [_by_words(recordings)]
    elif "fold" in clips:
        splits = _by_number(clips, clips["fold"].astype(int))
    else:
        return None
    if problem := _first_problem(splits, clips):
        raise DatasetError(f"{recordings.source}: {problem}")
    return splits


def _by_words(recordings: Recordings) -> Split:
    clips = recordings.clips
    there = set(clips["split"])
    if missing := [word for word in ("train", "test") if word not in there]:
        here = " and ".join(sorted(there))
        raise DatasetError(
            f"{recordings.source}: the splits are {here}; there is no {missing[0]} split: add "
            "one, or give the clips without their splits to have folds made"
        )
    parts = {word: clips[clips["split"] == word] for word in ("train", "test", "validation")}
    return Split(None, **parts)


def made_splits(recordings: Recordings, folds: int, seed: int) -> list[Split]:
    """Stratified splits that keep the column `group` together. Raises DatasetError.

    Several seeds are tried, then the search is exact. So a division that exists is found.
    """
    clips = recordings.clips
    groups = clips.groupby("classname")["group"].nunique().sort_values()
    fewest = int(groups.iloc[0])
    if fewest < max(folds, 2):
        way = f"use folds={fewest}" if fewest > 1 else "it needs two, to train and to test on"
        raise DatasetError(
            f"{recordings.source}: {groups.index[0]} has {fewest} recordings (groups), too few for "
            f"folds={folds}: {way}"
        )
    for splits in _greedy_splits(clips, folds, seed, fewest):
        problem = _first_problem(splits, clips)
        if not problem:
            return splits
    number = _search_folds(clips, folds)
    if number is None:
        raise DatasetError(
            f"{recordings.source}: {problem}. No division that keeps the groups together has every "
            "class in every part"
        )
    return _numbered(clips, number, folds)


def _greedy_splits(clips: pd.DataFrame, folds: int, seed: int, fewest: int) -> Iterator[list]:
    """Splits by scikit-learn's splitter, by `seed` and further seeds.

    The splitter is greedy, so a class with few groups may be missing in a fold with one seed and
    not with another.
    """
    pieces = folds if folds > 1 else min(SINGLE_SPLIT_FOLDS, fewest)
    for attempt in range(SEEDS_TRIED):
        number = pd.Series(0, clips.index)
        state = (seed + attempt) % 2**32
        splitter = StratifiedGroupKFold(pieces, shuffle=True, random_state=state)
        parts = splitter.split(clips, clips["classname"], clips["group"])
        for fold, (_, test) in enumerate(parts, 1):
            number.iloc[test] = fold
        yield _numbered(clips, number, folds)


def _numbered(clips: pd.DataFrame, number: pd.Series, folds: int) -> list[Split]:
    """Splits by the number of the fold that each clip is tested in; fold 1 is a single split's."""
    splits = _by_number(clips, number)
    return splits if folds > 1 else [Split(None, splits[0].train, splits[0].test)]


def _by_number(clips: pd.DataFrame, number: pd.Series) -> list[Split]:
    """A fold for each number, tested on the clips that have it."""
    return [
        Split(int(fold), clips[number != fold], clips[number == fold])
        for fold in sorted(number.unique())
    ]


def _first_problem(splits: list[Split], clips: pd.DataFrame) -> str | None:
    """The message about a class that lacks training or test clips in a split, or None."""
    classes = set(clips["classname"])
    for split in splits:
        place = "the split" if split.fold is None else f"fold {split.fold}"
        for part, frame in (("train", split.train), ("test", split.test)):
            if lacking := sorted(classes - set(frame["classname"])):
                return (
                    f"{place} has no clip of {', '.join(lacking)} to {part} on: a class needs "
                    "recordings (groups) for both; use fewer folds, or correct the split"
                )
    return None


def _search_folds(clips: pd.DataFrame, folds: int) -> pd.Series | None:
    """The fold of each clip, with every class in every fold, as a mixed-integer program.

    A variable for each group and fold is 1 if the group is in the fold. The largest fold is as
    small as possible. For a single split, fold 1 is its test part. None: there is no such division,
    or none was found in SEARCH_SECONDS.
    """
    pieces = max(folds, 2)
    group, names = pd.factorize(clips["group"])
    label, classes = pd.factorize(clips["classname"])
    ones = np.ones(len(clips))
    holds = csr_array((ones, (label, group)), (len(classes), len(names))) > 0
    counts = csr_array(np.bincount(group).reshape(1, -1))
    each = eye_array(pieces)
    # Variable n * pieces + k: group n is in fold k. The last one is the size of the largest fold.
    size = len(names) * pieces
    shares = [1, SINGLE_SPLIT_FOLDS - 1] if folds == 1 else [1] * pieces
    once = kron(eye_array(len(names)), np.ones((1, pieces)))
    found = milp(
        np.append(np.zeros(size), 1),
        integrality=np.append(np.ones(size), 0),
        bounds=Bounds(0, np.append(np.ones(size), np.inf)),
        constraints=[
            LinearConstraint(_with_last_column(once, 0), 1, 1),
            LinearConstraint(_with_last_column(kron(holds, each), 0), 1, np.inf),
            LinearConstraint(_with_last_column(kron(counts, each), -np.array(shares)), -np.inf, 0),
        ],
        options={"time_limit": SEARCH_SECONDS, "mip_rel_gap": 0.05},
    )
    if found.x is None:
        return None
    chosen = found.x[:-1].reshape(len(names), pieces).argmax(1)
    return pd.Series(chosen[group] + 1, clips.index)


def _with_last_column(matrix, values) -> csr_array:
    """A constraint's matrix with a column more, for the size of the largest fold."""
    column = np.broadcast_to(values, matrix.shape[0]).reshape(-1, 1)
    return csr_array(hstack([matrix, csr_array(column.astype(float))]))
