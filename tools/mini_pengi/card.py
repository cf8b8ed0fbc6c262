"""The model card of a mini-PENGI, written from what its making left behind: log.json, figures.csv,
the file itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from mini_pengi import controls
from mini_pengi.corpus import list_clips
from mini_pengi.descriptions import caption
from palmkit import load_pengi
from palmkit.audio import digest
from palmkit.results.formats import format_score
from palmkit.results.tables import METHOD_NAMES, to_markdown
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
{layers} layers, joint width {dim}. The layout is that of `base.pth`, read by the same `load_pengi`.
"""
DATA = """\
## What it was trained on

{clips:,} generated clips of 5 s of {concepts} concepts with {names} names, recipe `{recipe}`,
seed {seed}; {held_out} concepts were held out. `tools/mini_pengi/README.md` describes them.
Captions say what is heard and, in {described:.0%}, how it was recorded, for example:

{captions}

No caption has these words of the prompts below: "this is", "with hum", "playing", "imitating".
"""
TRAINING_TEXT = """\
## How

First the audio encoder, with a text encoder that is not kept: symmetric InfoNCE between clips and
captions, batches of distinct concepts, plus the cross-entropy of a concept classifier; AdamW,
warm-up, cosine to zero: `{recipe}`. `half`: bfloat16 where autocast finds it safe.

{losses}

Then, with the audio encoder locked (as in LiT, arXiv 2111.07991), the audio projection and a new
text encoder on captions that describe the recording: `{text}`.
The logit scale is learned in the first half and rises to the published 100 in the second.

{text_losses}

At the end the residual stream of the text encoder is multiplied by {gain:g}, which changes no
embedding and makes a step of the paper's learning rate a smaller one. Nothing else prepares it for
prompt learners.
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

Zero-shot accuracy with eight prompts, listed before the first trial; the first is the published
one, which the table above uses. "Mean" is over the {default} default datasets. Best and worst
differ by {spread:.3f} in the mean, and by {set_spread:.3f} within a dataset on average.

{prompts}

## What was chosen, and on what

Sizes, captions and step counts were chosen by accuracies on the {default} default datasets (fold 1,
seed 0), which the tables above and notebooks 1 to 5 report: these accuracies are no test of the
model. ESC-10, Languages, SpanishDigits and UnseenConcepts decided nothing.
`tools/mini_pengi/README.md` has the table of what was tried.
"""
SEEDS = """\
## Another training seed

The same corpus and recipe, other initial weights and batches. "mean" is over the six default
datasets. "spread" is the difference of the best and the worst of the eight prompts above: of the
mean accuracy, and in brackets of each dataset's accuracy, then averaged.

{table}

{spread}
"""
LIMITS = """\
## What it cannot do

- It knows {concepts} concepts by {names} names. A word that is in none of its captions has a random
  embedding (see "Concepts held out of training"), and a class named by such words is guessed.
- Its world is synthetic: formulas for sounds, one sound font, one formant synthesiser. It knows
  how espeak-ng speaks a language, not how people do; moods are rules of prosody.
- It does not read sentences. It knows names, words for recording conditions, and few others. A
  "not" is a word of no meaning to it.
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
    """The paper's methods and the linear probe, of every training seed side by side.

    The last line is the mean over the default datasets.
    """
    both = pd.concat([cells(figures, "control"), cells(figures, "method")])["mean"].reset_index()
    shown = both[both["method"].isin(["zeroshot", "coop", "cocoop", "palm", controls.PROBE])]
    shown = shown.assign(method=shown["method"].map(CONTROL_NAMES | METHOD_NAMES))
    columns = ["method", "training_seed"]
    table = shown.pivot(index="dataset", columns=columns, values="mean").sort_index(axis=1)
    table.columns = [f"{method}, training seed {seed}" for method, seed in table.columns]
    table.loc["mean"] = table.loc[[name for name in DEFAULT_TASKS if name in table.index]].mean()
    return table.map(format_score, digits=3)


def spread_of_prompts(figures: pd.DataFrame) -> tuple[float, float]:
    """Best minus worst prompt: of the mean over the default datasets, and mean of each dataset's.

    figures: of one training seed.
    """
    means = wording_means(figures)
    return float(np.ptp(means.mean(axis=1))), float(np.ptp(means.to_numpy(), axis=0).mean())


def spread_table(figures: pd.DataFrame) -> pd.DataFrame:
    """A line for each training seed: the spread of prompts."""
    lines = {}
    for seed, own in figures.groupby("training_seed"):
        whole, of_datasets = spread_of_prompts(own)
        lines[f"training seed {seed}"] = {"spread": f"{whole:.3f} ({of_datasets:.3f})"}
    return pd.DataFrame.from_dict(lines, orient="index")


def wording_means(figures: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each prompt (rows) on each default dataset (columns)."""
    chosen = figures[(figures["kind"] == "wording") & figures["dataset"].isin(DEFAULT_TASKS)]
    return chosen.groupby(["method", "dataset"])["accuracy"].mean().unstack()


def wording_table(figures: pd.DataFrame) -> pd.DataFrame:
    """Prompts down, datasets across. The mean is over the default datasets."""
    chosen = figures[(figures["kind"] == "wording")]
    table = chosen.groupby(["method", "dataset"], sort=False)["accuracy"].mean().unstack()
    default = [name for name in DEFAULT_TASKS if name in table]
    table = table[default + [name for name in table if name not in DEFAULT_TASKS]]
    table.insert(len(default), "mean", table[default].mean(axis=1))
    table = table.map("{:.3f}".format).rename(index=lambda prompt: f"`{prompt}`")
    return table.rename_axis(index="prompt")


def unseen_table(figures: pd.DataFrame) -> pd.DataFrame:
    """Held-out concepts, by kind of newness."""
    names = {"dataset": "kind of name", "method": "concept"}
    chosen = figures[figures["kind"] == "unseen"].rename(columns=names)
    means = chosen.groupby(["kind of name", "concept"])["accuracy"].mean()
    table = means.reset_index().set_index("concept")
    return table.assign(accuracy=table["accuracy"].map("{:.2f}".format))


def unseen_accuracy(figures: pd.DataFrame) -> float:
    """Mean over the held-out concepts."""
    return figures[figures["kind"] == "unseen"]["accuracy"].mean()


def losses_table(log: list[dict]) -> pd.DataFrame:
    """Eight moments of a training log."""
    chosen = [log[round(k * (len(log) - 1) / 7)] for k in range(8)]
    names = {
        "contrast": "contrastive loss",
        "matched": "caption found in the batch",
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
        _training_data(settings["corpus"], clips, settings["text"]),
        _training(settings, content),
        _accuracies(own),
    ]
    if figures["training_seed"].nunique() > 1:
        sections.append(_seeds(figures))
    hop = 1000 * pengi.audio.hop_size / SAMPLE_RATE
    concepts = clips["concept"].nunique()
    sections.append(LIMITS.format(concepts=concepts, names=_count_names(), hop=hop))
    return "\n".join(sections)


def _seeds(figures: pd.DataFrame) -> str:
    tables = seeds_table(figures), spread_table(figures)
    table, spread = map(to_markdown, tables)
    return SEEDS.format(table=table, spread=spread)


def _count_names() -> int:
    return sum(len(concept.names) for concept in TRAINING.values())


def describe_file(path: Path, model) -> dict:
    """What a card says of a checkpoint: numbers of parameters, size in MB, sha256."""
    audio, text = (
        sum(weight.numel() for weight in encoder.parameters())
        for encoder in (model.audio, model.text)
    )
    return {
        "total": audio + text,
        "audio": audio,
        "text": text,
        "size": path.stat().st_size / 1e6,
        "sha256": digest(path.read_bytes()),
    }


def _what_it_is(path: Path, pengi) -> str:
    return WHAT.format(
        **describe_file(path, pengi),
        vocabulary=pengi.text.token_embedding.weight.numel(),
        dim=pengi.dim,
        layers=len(pengi.text.layers),
    )


def _training_data(corpus: dict, clips: pd.DataFrame, text: dict) -> str:
    return DATA.format(
        clips=len(clips),
        concepts=clips["concept"].nunique(),
        names=_count_names(),
        described=text["described"],
        captions="\n".join(f"- {caption}" for caption in example_captions(text)),
        recipe=corpus["recipe"],
        seed=corpus["seed"],
        held_out=len(HELD_OUT),
    )


def example_captions(text: dict) -> list[str]:
    """One caption each of four recordings."""
    distant = {"wet": 0.4, "reverb": 1.5, "snr_db": 15.0, "level_db": 0.0, "edge_band": 64}
    close = {"wet": 0.0, "reverb": 0.0, "snr_db": 60.0, "level_db": 15.0, "edge_band": 64}
    phone = {"wet": 0.05, "reverb": 0.2, "snr_db": 30.0, "level_db": 0.0, "edge_band": 30}
    rest = {"low_pass_hz": 20_000.0, "drive": 0.0, "excerpt": 9.0}
    rng = np.random.default_rng(0)
    clips = [
        distant | {"concept": "dog", "second": ""},
        close | {"concept": "piano", "second": ""},
        phone | {"concept": "laughter", "second": ""},
        close | {"concept": "rain", "second": "crow"},
    ]
    return [caption(clip | rest, rng, text, fully=True) for clip in clips]


def _training(settings: dict, content: dict) -> str:
    recipe = {key: value for key, value in settings.items() if key not in ("corpus", "text")}
    return TRAINING_TEXT.format(
        recipe=json.dumps(recipe),
        losses=to_markdown(losses_table(content["log"])),
        text=json.dumps(settings["text"]),
        text_losses=to_markdown(losses_table(content["text_log"])),
        gain=settings["text"]["gain"],
    )


def _accuracies(figures: pd.DataFrame) -> str:
    return ACCURACIES.format(
        accuracies=to_markdown(accuracy_table(figures)),
        held_out=len(HELD_OUT),
        unseen=unseen_accuracy(figures),
        chance=1 / len(HELD_OUT),
        concepts=to_markdown(unseen_table(figures)),
        prompts=to_markdown(wording_table(figures), markup=True),
        default=len(DEFAULT_TASKS),
        spread=spread_of_prompts(figures)[0],
        set_spread=spread_of_prompts(figures)[1],
    )
