"""The model card of a mini-PENGI, written from what its making left behind: log.json, figures.csv, the file itself."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from mini_pengi import controls
from mini_pengi.corpus import plan
from palmkit import load_pengi
from palmkit.audio import digest
from palmkit.results.tables import METHOD_NAMES, to_markdown
from palmkit_synthetic.captions import TEMPLATES
from palmkit_synthetic.concepts import HELD_OUT, TRAINING
from palmkit_synthetic.tasks import DEFAULT_TASKS

INTRODUCTION = """\
# mini-PENGI

The kit's embedded default: PENGI's two encoders at a small size, pre-trained on generated sounds, music and speech
alone. It lets every part of the kit run in minutes without a download, with few-shot methods that have something to
gain. **No number of it is PENGI's or the paper's.** `make mini` makes it from nothing; this page is written by that
command from what it measured.
"""
LIMITS = """\
## What it cannot do

- It knows {concepts} concepts by {names} names. A word that is in none of its captions has a random embedding (see
  "Concepts never heard"), and a class named by such words is guessed.
- Its world is synthetic: formulas for sounds, one sound font, one formant synthesiser. It hears how espeak-ng speaks a
  language, not how people do; moods are rules of prosody.
- It does not read sentences: it was taught to look past the words around a name (see "Wording"), and would look past a
  "not" as well.
- Clips over 7 s are cropped and shorter ones repeated, as with PENGI. Detail faster than {hop:.0f} ms is lost.
- Not for use outside of this kit: no safety-relevant sound should be recognised by it.

## Licences

The weights and the code that made them are the kit's (MIT). The sources are read where pip put them and are not
contained: TimGM6mb.sf2 of `pretty_midi` (GPL-2.0 by those who distribute it; the file does not say), espeak-ng of
`espeakng-loader` (GPL-3.0-or-later). `tools/mini_pengi/README.md` tells what is known of each. ESC-10, where it was
measured: K. J. Piczak 2015, each clip CC0 or CC-BY 3.0; never trained on, never chosen by.
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
    return f"{mean:.3f} ± {std:.3f} (n={count:.0f})" if count > 1 else f"{mean:.3f} (n={count:.0f})"


def accuracy_table(figures: pd.DataFrame) -> pd.DataFrame:
    """Datasets down, controls and methods across, "mean ± std (n)"; the mean over the default datasets below them."""
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
    table = shown.pivot(
        index="dataset", columns=["method", "training_seed"], values="mean"
    ).sort_index(axis=1)
    table.columns = [f"{method}, training seed {seed}" for method, seed in table.columns]
    return table.map("{:.3f}".format)


def wording_table(figures: pd.DataFrame) -> pd.DataFrame:
    """Prompts down, datasets across."""
    chosen = figures[(figures["kind"] == "wording")]
    table = chosen.groupby(["method", "dataset"], sort=False)["accuracy"].mean().unstack()
    table = table[
        [name for name in DEFAULT_TASKS if name in table]
        + [c for c in table if c not in DEFAULT_TASKS]
    ]
    table["mean"] = table.mean(axis=1)
    return (
        table.map("{:.3f}".format)
        .rename(index=lambda prompt: f"`{prompt}`")
        .rename_axis(index="prompt")
    )


def unseen_table(figures: pd.DataFrame) -> pd.DataFrame:
    """Held-out concepts, by kind of newness."""
    chosen = figures[figures["kind"] == "unseen"].rename(
        columns={"dataset": "kind of name", "method": "concept"}
    )
    table = (
        chosen.groupby(["kind of name", "concept"])["accuracy"]
        .mean()
        .reset_index()
        .set_index("concept")
    )
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
    """The card of the checkpoint in `folder`; figures may have those of other training seeds beside its own."""
    told = json.loads((folder / "log.json").read_text())
    settings, path = told["settings"], folder / "mini.safetensors"
    own = figures[figures["training_seed"] == settings["seed"]]
    pengi = load_pengi(path, "cpu")
    numbers = {
        kind: sum(p.numel() for p in getattr(pengi, kind).parameters())
        for kind in ("audio", "text")
    }
    vocabulary = pengi.text.token_embedding.weight.numel()
    heard = plan(settings["corpus"]["seed"], settings["corpus"]["scale"])
    names = sum(len(concept.names) for concept in TRAINING.values())
    unseen = own[own["kind"] == "unseen"]["accuracy"].mean()
    recipe = {key: value for key, value in settings.items() if key not in ("corpus", "steady")}
    steadied = settings["steady"]
    parts = [
        INTRODUCTION,
        "## What it is\n",
        f"{sum(numbers.values()):,} parameters ({numbers['audio']:,} audio, {numbers['text']:,} text, of which "
        f"{vocabulary:,} embed CLIP's vocabulary), in half precision: {path.stat().st_size / 1e6:.1f} MB, sha256 "
        f"`{digest(path.read_bytes())}`. Swin of width 32 with 3 stages of 2 blocks on a 128 x 128 image (two "
        f"segments), text width 64 with 4 layers, joint width {pengi.dim}. The layout is that of `base.pth`, read by "
        "the same `load_pengi`.\n",
        "## What it was trained on\n",
        f"{len(heard):,} generated clips of 5 s of {heard['concept'].nunique()} concepts with {names} names in "
        f"{len(TEMPLATES)} caption templates (no evaluation prompt is among them), recipe "
        f"`{settings['corpus']['recipe']}`, seed {settings['corpus']['seed']}; {len(HELD_OUT)} concepts were held out. "
        "`tools/mini_pengi/README.md` describes them.\n",
        "## How\n",
        "Symmetric InfoNCE between clips and captions, batches of distinct concepts, plus the cross-entropy of a "
        f"concept classifier that is thrown away; AdamW, warm-up, cosine to zero: `{json.dumps(recipe)}`. `half`: "
        "bfloat16 where autocast finds it safe.\n",
        to_markdown(losses_table(told["log"])),
        f"\nThen the text encoder is steadied for prompt learners (`tools/mini_pengi/steady.py`): {steadied['steps']} "
        f"steps of embedding captions with up to {steadied['most']} random tokens in front where it embeds them "
        f"without (1 - cosine {steadied['losses'][0]:.3f} -> {steadied['losses'][-1]:.3f}), and its residual stream "
        f"multiplied by {steadied['gain']:g}, which changes no embedding and makes a step of the paper's learning "
        "rate a smaller one.\n",
        "\n## Accuracy\n",
        "Few-shot: the paper's settings (16 shots, 50 epochs, lr 0.05). Mean over folds for each seed, then mean ± "
        "standard deviation over n seeds. Linear probes: scikit-learn's logistic regression on the same 16 shots. "
        '"Untrained" is the network as training found it.\n',
        to_markdown(accuracy_table(own)),
        "\n## Concepts never heard\n",
        f"Zero-shot among the {len(HELD_OUT)} held-out concepts: {unseen:.3f} (chance {1 / len(HELD_OUT):.3f}):\n",
        to_markdown(unseen_table(own)),
        "\n## Wording\n",
        "Zero-shot accuracy with other prompts; the first is the published one, which the table above uses.\n",
        to_markdown(wording_table(own)),
    ]  # fmt: skip
    if figures["training_seed"].nunique() > 1:
        parts += [
            "\n## Another training seed\n",
            "The same corpus and recipe, other initial weights and batches.\n",
        ]
        parts += [to_markdown(seeds_table(figures))]
    hop = 1000 * pengi.audio.hop_size / 44_100
    parts += ["", LIMITS.format(concepts=heard["concept"].nunique(), names=names, hop=hop)]
    return "\n".join(parts)
