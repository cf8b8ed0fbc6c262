"""`python -m mini_pengi`: mini-PENGI from nothing (corpus, training, figures, model card).

`make mini` runs it. Everything is resumable: what is there and whole is not made again. Seed 0 is
the shipped checkpoint and is put into the package; another seed is trained beside it and stands in
the card as a comparison.

`python -m mini_pengi --variant clap` makes mini-CLAP. Of it seed 1 is shipped.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from pathlib import Path

import pandas as pd

from mini_pengi import clap_card, clap_variant
from mini_pengi.card import write_card
from mini_pengi.corpus import build_corpus
from mini_pengi.figures import measure
from mini_pengi.pretrain import RECIPE, train
from mini_pengi.text_tower import add_text_encoder
from mini_pengi.views import make_views
from palmkit.experiments.timing import duration
from palmkit.models.mini_clap import MINI_CLAP
from palmkit.models.pengi import MINI
from palmkit.storage import atomic_write
from palmkit_synthetic.tasks import TASKS, build_tasks

SHIPPED = 0  # the training seed of the checkpoint in the package


def main() -> None:
    parser = argparse.ArgumentParser("python -m mini_pengi", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path("data/mini"), help="of corpus and training: %(default)s"
    )
    parser.add_argument("--out", type=Path, help="of the shipped checkpoint: the package")
    parser.add_argument(
        "--variant", choices=["pengi", "clap"], default="pengi", help="mini-PENGI or mini-CLAP"
    )
    parser.add_argument(
        "--seed", type=int, help="of initial weights and batches: that of the shipped checkpoint"
    )
    parser.add_argument("--steps", type=int, default=RECIPE["steps"], help="%(default)s")
    parser.add_argument(
        "--esc10", type=Path, help="ESC-10 in the published layout, to be measured too"
    )
    given = parser.parse_args()
    is_clap = given.variant == "clap"
    if given.seed is None:
        given.seed = clap_variant.SHIPPED if is_clap else SHIPPED
    out = given.out or (MINI_CLAP.parent if is_clap else MINI.parent)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("palmkit").setLevel(logging.INFO)
    folder, started = given.work / f"seed{given.seed}", time.monotonic()

    def stage(what: str) -> None:
        print(f"[{duration(time.monotonic() - started).removeprefix('about ')}] {what}", flush=True)

    stage("corpus: about 13,000 clips, 6 min on two cores")
    corpus = build_corpus(given.work / "corpus")
    stage(f"audio encoder, {given.steps} steps, 25 to 40 min on two cores")
    trunk = folder / "trunk"
    train(corpus, trunk, given.seed, steps=given.steps)
    stage("views of the corpus by the audio encoder, 5 min")
    views = make_views(trunk / "mini.safetensors", corpus, folder / "views.pt", given.seed)
    stage("text encoder, 2 min")
    if is_clap:
        clap_variant.add_clap_text(trunk, folder / "clap", views, given.seed)
    else:
        add_text_encoder(trunk, folder, views, given.seed)
    stage("tasks")
    build_tasks(list(TASKS))
    if is_clap:
        stage("figures: zero-shot on every task")
        clap_variant.measure(folder / "clap", given.seed)
        publish_clap(folder / "clap", given.seed, out)
    else:
        stage("figures: methods and controls on every task")
        measure(folder, given.seed, given.esc10)
        publish(given.work, out)
    stage(f"done; the card is {out / 'MODEL_CARD.md'}")


def publish(work: Path, out: Path) -> None:
    """Put the shipped seed's files into the package, and the figures of all seeds into its card."""
    shipped = work / f"seed{SHIPPED}"
    if not (shipped / "figures.csv").is_file():
        return
    paths = sorted(
        work.glob("seed*/figures.csv"), key=lambda path: int(path.parent.name.removeprefix("seed"))
    )
    figures = pd.concat([pd.read_csv(path) for path in paths])
    copy_files(shipped, out, ("mini.safetensors", "config.json", "log.json"))
    figures.to_csv(out / "figures.csv", index=False, float_format="%.6f")
    atomic_write(out / "MODEL_CARD.md", write_card(out, figures))
    (out / "MODEL_CARD.md").chmod(0o644)


def publish_clap(folder: Path, seed: int, out: Path) -> None:
    """Put mini-CLAP's files into the package with its card, if it is the shipped seed's."""
    if seed != clap_variant.SHIPPED:
        return
    copy_files(folder, out, (clap_variant.FILE, "config.json", "log.json", "figures.csv"))
    figures, beside = pd.read_csv(out / "figures.csv"), pd.read_csv(MINI.parent / "figures.csv")
    beside = beside[beside["training_seed"] == SHIPPED]
    atomic_write(out / "MODEL_CARD.md", clap_card.write_card(out, figures, beside))
    (out / "MODEL_CARD.md").chmod(0o644)


def copy_files(folder: Path, out: Path, names: tuple[str, ...]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(folder / name, out / name)
        (out / name).chmod(0o644)


if __name__ == "__main__":
    main()
