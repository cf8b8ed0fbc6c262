"""The model card of a mini-PENGI, written from what its making left behind: log.json, figures.csv,
the file itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from mini_pengi import controls
from mini_pengi.corpus import list_clips
from palmkit import load_pengi
from palmkit.audio import digest
from palmkit.results.tables import METHOD_NAMES, to_markdown
from palmkit_synthetic.captions import TEMPLATES
from palmkit_synthetic.concepts import HELD_OUT, TRAINING
from palmkit_synthetic.dsp import SAMPLE_RATE
from palmkit_synthetic.tasks import DEFAULT_TASKS

INTRODUCTION = """\
# mini-PENGI

The kit's embedded default: PENGI's two encoders at a small size, pre-trained on generated sounds,
music and speech alone. With it every part of the kit runs in minutes without a download, and
few-shot methods have something to gain. **No number of it is PENGI's or the paper's.** `make mini`
makes it from nothing; that command writes this page from what it measured.
"""
WHAT = """\
## What it is

{total:,} parameters ({audio:,} audio, {text:,} text, of which {vocabulary:,} embed CLIP's
vocabulary), in half precision: {size:.1f} MB, sha256 `{sha256}`.
Swin of width 32 with 3 stages of 2 blocks on a 128 x 128 image (two segments), text width 64 with
4 layers, joint width {dim}. The layout is that of `base.pth`, read by the same `load_pengi`.
"""
DATA = """\
## What it was trained on

{clips:,} generated clips of 5 s of {concepts} concepts with {names} names in {templates} caption
templates (no evaluation prompt is among them), recipe `{recipe}`, seed {seed};
{held_out} concepts were held out. `tools/mini_pengi/README.md` describes them.
"""
TRAINING_TEXT = """\
## How

Symmetric InfoNCE between clips and captions, batches of distinct concepts, plus the cross-entropy
of a concept classifier that is not kept; AdamW, warm-up, cosine to zero: `{recipe}`.
`half`: bfloat16 where autocast finds it safe.

{losses}

Then the text encoder is steadied for prompt learners (`tools/mini_pengi/steady.py`). It learns in
{steps} steps to embed captions with up to {most} random tokens in front where it embeds them
without (1 - cosine {first:.3f} -> {last:.3f}). Its residual stream is multiplied by {gain:g},
which changes no embedding and makes a step of the paper's learning rate a smaller one.
"""
ACCURACIES = """\
## Accuracy

Few-shot: the paper's settings (16 shots, 50 epochs, lr 0.05). Mean over folds for each seed, then
mean ± standard deviation over n seeds. Linear probes: scikit-learn's logistic regression on the
same 16 shots. "Untrained" is the network before training.

{accuracies}

## Concepts held out of training

Zero-shot among the {held_out} held-out concepts: {unseen:.3f} (chance {chance:.3f}):

{concepts}

## Wording

Zero-shot accuracy with other prompts; the first is the published one, which the table above uses.

{prompts}
"""
SEEDS = """\
## Another training seed

The same corpus and recipe, other initial weights and batches.

{table}
"""
LIMITS = """\
## What it cannot do

- It knows {concepts} concepts by {names} names. A word that is in none of its captions has a random
  embedding (see "Concepts held out of training"), and a class named by such words is guessed.
- Its world is synthetic: formulas for sounds, one sound font, one formant synthesiser. It knows how
  espeak-ng speaks a language, not how people do; moods are rules of prosody.
- It does not read sentences: it learned to ignore the words around a name (see "Wording"), and
  would ignore a "not" as well.
- Clips over 7 s are cropped and shorter ones repeated, as with PENGI. Detail faster than
  {hop:.0f} ms is lost.
- Not for use outside of this kit: use it to recognise no sound on which safety depends.

## Licences

The weights and the code that made them are the kit's (MIT). The sources are read where pip put them
and are not contained: TimGM6mb.sf2 of `pretty_midi` (GPL-2.0 by those who distribute it; the file
does not say), espeak-ng of `espeakng-loader` (GPL-3.0-or-later). `tools/mini_pengi/README.md` says
what is known of each. ESC-10, where it was measured: K. J. Piczak 2015, each clip CC0 or CC-BY 3.0;
never trained on, never chosen by.
"""
CONTROL_NAMES = {
    controls.CHANCE: "Chance",
    controls.UNTRAINED: "Untrained, zero-shot",
    controls.UNTRAINED_PROBE: "Untrained, linear probe",
    controls.RAW: "Log-mel statistics, linear probe",
    controls.PROBE: "Linear probe",
}


def cells(figures: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Accuracy by (dataset, method): mean over folds per seed, then mean, std and n over seeds."""
    chosen = figures[figures["kind"] == kind]
    by_seed = chosen.groupby(["training_seed", "dataset", "method", "seed"])["accuracy"].mean()
    return by_seed.groupby(["training_seed", "dataset", "method"]).agg(["mean", "std", "count"])


def written(mean: float, std: float, count: float) -> str:
    spread = f" ± {std:.3f}" if count > 1 else ""
    return f"{mean:.3f}{spread} (n={count:.0f})"


def accuracy_table(figures: pd.DataFrame) -> pd.DataFrame:
    """Datasets down, controls and methods across: "mean ± std (n)".

    The last row is the mean over the default datasets.
    """
    both = pd.concat([cells(figures, "control"), cells(figures, "method")]).reset_index()
    names = CONTROL_NAMES | METHOD_NAMES
    order = [name for name in (*METHOD_NAMES, *CONTROL_NAMES) if name in set(both["method"])]
    datasets = [*DEFAULT_TASKS, *sorted(set(both["dataset"]) - set(DEFAULT_TASKS))]
    both["cell"] = [written(*line) for line in both[["mean", "std", "count"]].to_numpy()]
    table = both.pivot(index="dataset", columns="method", values="cell").loc[datasets, order]
    means = both[both["dataset"].isin(DEFAULT_TASKS)].groupby("method")["mean"].mean()
    table.loc[f"mean of the first {len(DEFAULT_TASKS)}"] = means.map("{:.3f}".format)
    return table.rename(columns=names).fillna("–").rename_axis(index="dataset")


def seeds_table(figures: pd.DataFrame) -> pd.DataFrame:
    """Zero-shot, PALM and linear probe of every training seed side by side."""
    both = pd.concat([cells(figures, "control"), cells(figures, "method")])["mean"].reset_index()
    shown = both[both["method"].isin(["zeroshot", "coop", "palm", controls.PROBE])]
    shown = shown.assign(method=shown["method"].map(CONTROL_NAMES | METHOD_NAMES))
    columns = ["method", "training_seed"]
    table = shown.pivot(index="dataset", columns=columns, values="mean").sort_index(axis=1)
    table.columns = [f"{method}, training seed {seed}" for method, seed in table.columns]
    return table.map("{:.3f}".format)


def wording_table(figures: pd.DataFrame) -> pd.DataFrame:
    """Prompts down, datasets across."""
    chosen = figures[(figures["kind"] == "wording")]
    table = chosen.groupby(["method", "dataset"], sort=False)["accuracy"].mean().unstack()
    default = [name for name in DEFAULT_TASKS if name in table]
    table = table[default + [name for name in table if name not in DEFAULT_TASKS]]
    table["mean"] = table.mean(axis=1)
    table = table.map("{:.3f}".format).rename(index=lambda prompt: f"`{prompt}`")
    return table.rename_axis(index="prompt")


def unseen_table(figures: pd.DataFrame) -> pd.DataFrame:
    """Held-out concepts, by kind of newness."""
    names = {"dataset": "kind of name", "method": "concept"}
    chosen = figures[figures["kind"] == "unseen"].rename(columns=names)
    means = chosen.groupby(["kind of name", "concept"])["accuracy"].mean()
    table = means.reset_index().set_index("concept")
    return table.assign(accuracy=table["accuracy"].map("{:.2f}".format))


def losses_table(log: list[dict]) -> pd.DataFrame:
    """Eight moments of the training log."""
    chosen = [log[round(k * (len(log) - 1) / 7)] for k in range(8)]
    names = {
        "contrast": "contrastive loss",
        "matched": "caption found among 64",
        "classified": "concept found",
    }
    return pd.DataFrame(chosen).set_index("step").rename(columns=names | {"scale": "logit scale"})


def write_card(folder: Path, figures: pd.DataFrame) -> str:
    """The card of the checkpoint in `folder`.

    figures: those of other training seeds may stand beside the checkpoint's own.
    """
    content = json.loads((folder / "log.json").read_text())
    settings, path = content["settings"], folder / "mini.safetensors"
    own = figures[figures["training_seed"] == settings["seed"]]
    pengi = load_pengi(path, "cpu")
    clips = list_clips(settings["corpus"]["seed"], settings["corpus"]["scale"])
    sections = [
        INTRODUCTION,
        _what_it_is(path, pengi),
        _training_data(settings["corpus"], clips),
        _training(settings, content["log"]),
        _accuracies(own),
    ]
    if figures["training_seed"].nunique() > 1:
        sections.append(SEEDS.format(table=to_markdown(seeds_table(figures))))
    hop = 1000 * pengi.audio.hop_size / SAMPLE_RATE
    concepts = clips["concept"].nunique()
    sections.append(LIMITS.format(concepts=concepts, names=_count_names(), hop=hop))
    return "\n".join(sections)


def _count_names() -> int:
    return sum(len(concept.names) for concept in TRAINING.values())


def _what_it_is(path: Path, pengi) -> str:
    audio, text = (
        sum(weight.numel() for weight in encoder.parameters())
        for encoder in (pengi.audio, pengi.text)
    )
    return WHAT.format(
        total=audio + text,
        audio=audio,
        text=text,
        vocabulary=pengi.text.token_embedding.weight.numel(),
        size=path.stat().st_size / 1e6,
        sha256=digest(path.read_bytes()),
        dim=pengi.dim,
    )


def _training_data(corpus: dict, clips: pd.DataFrame) -> str:
    return DATA.format(
        clips=len(clips),
        concepts=clips["concept"].nunique(),
        names=_count_names(),
        templates=len(TEMPLATES),
        recipe=corpus["recipe"],
        seed=corpus["seed"],
        held_out=len(HELD_OUT),
    )


def _training(settings: dict, log: list[dict]) -> str:
    recipe = {key: value for key, value in settings.items() if key not in ("corpus", "steady")}
    steady = settings["steady"]
    return TRAINING_TEXT.format(
        recipe=json.dumps(recipe),
        losses=to_markdown(losses_table(log)),
        steps=steady["steps"],
        most=steady["most"],
        first=steady["losses"][0],
        last=steady["losses"][-1],
        gain=steady["gain"],
    )


def _accuracies(figures: pd.DataFrame) -> str:
    return ACCURACIES.format(
        accuracies=to_markdown(accuracy_table(figures)),
        held_out=len(HELD_OUT),
        unseen=figures[figures["kind"] == "unseen"]["accuracy"].mean(),
        chance=1 / len(HELD_OUT),
        concepts=to_markdown(unseen_table(figures)),
        prompts=to_markdown(wording_table(figures), markup=True),
    )
