"""The model card of mini-CLAP, written from what its making left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from mini_pengi.card import describe_file, losses_table, unseen_accuracy, wording_table
from mini_pengi.clap_variant import FILE
from palmkit.models.mini_clap import TOKEN_IDS, load_mini_clap
from palmkit.models.torch_files import read_tensors
from palmkit.results.tables import to_markdown
from palmkit_synthetic.tasks import DEFAULT_TASKS

TEXT = """\
# mini-CLAP

The second model that comes with the kit: `load_model("mini-clap")`. With it a finding about a
method can be tried on another model without a download. **No number of it is PENGI's, LAION-CLAP's
or the paper's.** `python -m mini_pengi --variant clap` makes it, and writes this page from what it
measured.

## What it is

{total:,} parameters ({audio:,} audio, {text:,} text), in half precision: {size:.1f} MB, sha256
`{sha256}`.
The file has the embeddings of the {tokens:,} tokens that training changed. The others, of words in
no caption, are numbers from a formula (`palmkit.models.mini_clap.random_tokens`).

| | mini-PENGI | mini-CLAP |
| --- | --- | --- |
| training seed | 0 | {seed} |
| audio encoder | as its card says | the same recipe and corpus |
| text encoder | causal, read at the last token | not causal, read at the first token |
| logit scale | 100, as PENGI's code has it | {scale:g}, learned to the last step |
| prompt | `The is a recording of  {{}}.` | `{prompt}` |

Sizes, captions and steps are mini-PENGI's ([its card](../mini/MODEL_CARD.md) describes them).
"This is" is in no caption. The recipe of the text encoder was not tuned for this variant: it was
trained once. Its audio encoder is that of mini-PENGI's training seed {seed}, which is not shipped.

| step | contrastive loss | caption found in the batch | logit scale |
{losses}

## Zero-shot accuracy

Mean over folds, each model with its own prompt.

{accuracies}

Among the 12 concepts held out of training: {unseen:.3f} (mini-PENGI {other_unseen:.3f}).

## Wording

Zero-shot accuracy with mini-CLAP's prompt, and with the eight prompts of mini-PENGI's card.

{wordings}

## What it cannot do, licences

As mini-PENGI's card says.
"""


def write_card(folder: Path, figures: pd.DataFrame, mini_figures: pd.DataFrame) -> str:
    """The card of the model in `folder`.

    figures: its own. mini_figures: those of mini-PENGI's card, of the shipped training seed.
    """
    content, path = json.loads((folder / "log.json").read_text()), folder / FILE
    model = load_mini_clap("cpu", path)
    return TEXT.format(
        **describe_file(path, model),
        tokens=len(read_tensors(path)[TOKEN_IDS]),
        seed=content["settings"]["seed"],
        scale=model.logit_scale,
        prompt=model.prompt,
        losses=to_markdown(losses_table(content["text_log"])).partition("\n")[2],
        accuracies=to_markdown(accuracy_table(figures, mini_figures)),
        unseen=unseen_accuracy(figures),
        other_unseen=unseen_accuracy(mini_figures),
        wordings=to_markdown(wording_table(figures), markup=True),
    )


def accuracy_table(figures: pd.DataFrame, mini_figures: pd.DataFrame) -> pd.DataFrame:
    """Datasets down; zero-shot accuracy of mini-PENGI and mini-CLAP. The last row is the mean of
    the default datasets."""
    columns = {}
    for name, rows in {"mini-PENGI": mini_figures, "mini-CLAP": figures}.items():
        chosen = rows[(rows["kind"] == "method") & (rows["method"] == "zeroshot")]
        columns[name] = chosen.groupby("dataset")["accuracy"].mean()
    table = pd.DataFrame(columns).dropna()
    table = table.loc[[*DEFAULT_TASKS, *sorted(set(table.index) - set(DEFAULT_TASKS))]]
    table.loc["mean of the first 6"] = table.loc[[*DEFAULT_TASKS]].mean()
    return table.map("{:.3f}".format).rename_axis(index="dataset")
