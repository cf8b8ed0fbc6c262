"""Make tests/fixtures, the reference in under 3 MB, from ../shared/reference.

Left out of the checkpoint is what reference.py computes again: STFT kernels, shift masks, position
indices, the zeros of the mel matrix. Left out for good: the decoder, the two tagging heads (no
embedding passes through them; the copy has zeros there), and the embeddings of tokens that nothing
here uses (zeros too). All other weights stay as they are.
"""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import open_clip
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
import reference
from reference import COMMON, FIXTURES, MEL, METHODS, SHARED, TOKENS, UNUSED, Reference
from safetensors.torch import save_file
from torch import Tensor

CLIPS = ["quiet", "square"]
FILES = ["j_44k_stereo_4s.flac", "m_11k_8bit.wav", "n_96k_24bit.flac"]
# A frame with bands at -93 dB beside loud ones: in float32 it depends on the order of the sum.
FAINT = ("harmonic", 32)
EDGE = 500  # samples kept at either end of a preprocessed file
LIMIT = 3_000_000

AUDIO = ["logmel_mean", "logmel_abs_mean", "image_grid8", "image_mean", "image_abs_mean"]
AUDIO += ["latent", "latent_f64", "embedding", "embedding_f64", "embedding_norm"]


def main() -> None:
    source = reference.full()
    compare(source.state(), checkpoint(source), source.facts["config"])
    shutil.rmtree(FIXTURES, ignore_errors=True)
    (FIXTURES / "preprocess").mkdir(parents=True)
    save_file(collect(source), FIXTURES / "compact.safetensors")
    (FIXTURES / "compact.json").write_text(
        json.dumps(facts(source), ensure_ascii=False, separators=(",", ":")) + "\n"
    )
    np.savez_compressed(
        FIXTURES / "clips.npz", **{clip: source.clips[clip].numpy() for clip in CLIPS}
    )
    for name in FILES:
        shutil.copyfile(source.preprocess / name, FIXTURES / "preprocess" / name)
    sizes = {
        path.relative_to(FIXTURES): path.stat().st_size for path in sorted(FIXTURES.rglob("*.*"))
    }
    print(
        *(f"{size:>9,}  {path}" for path, size in sizes.items()),
        f"{sum(sizes.values()):>9,}  total",
        sep="\n",
    )
    if sum(sizes.values()) > LIMIT:
        raise SystemExit(f"the fixture is over {LIMIT:,} bytes: take fewer or shorter FILES")


def collect(source: Reference) -> dict[str, Tensor]:
    """All tensors of compact.safetensors, as table/name."""
    tensors = {f"checkpoint/{key}": value for key, value in checkpoint(source).items()}
    for table in (audio(source), preprocess(source), text(source), training(source)):
        tensors.update(table)
    return {key: value.contiguous() for key, value in tensors.items()}


def checkpoint(source: Reference) -> dict[str, Tensor]:
    """The part of the state dict that cannot be computed."""
    state, derived = source.state(), reference.constants(source.facts["config"])
    rows = tokens_in_use(source)
    stored = {
        TOKENS: state[TOKENS][rows],
        TOKENS + ".rows": rows.int(),
        **reference.sparse(state[MEL], MEL),
    }
    for key, value in state.items():
        if not (
            key in derived
            or key in stored
            or "caption_decoder" in key
            or any(part in key for part in UNUSED)
        ):
            stored[key] = value
    return stored


def tokens_in_use(source: Reference) -> Tensor:
    """Ids in the text cases, in every published class name and in the methods' prompts."""
    with (SHARED.parent / "published" / "dataset_facts.csv").open(newline="") as file:
        names = "|".join(
            row["classnames_sorted_pipe_separated"] for row in csv.DictReader(file)
        ).split("|")
    phrases = [*names, *source.facts["class_names"], "The is a recording of X ."]
    tokenizer = open_clip.SimpleTokenizer()
    ids = {token for phrase in phrases for token in tokenizer.encode(phrase)}
    return torch.tensor(
        sorted(ids | set(source.tables["text_eval"]["input_ids"].flatten().tolist()))
    )


def compare(original: dict[str, Tensor], stored: dict[str, Tensor], config: dict) -> None:
    """Every tensor of the encoders is there again, and equal but where the docstring says zeros."""
    rebuilt = reference.rebuild(stored, config)
    used = {key: value for key, value in original.items() if "caption_decoder" not in key}
    assert used.keys() == rebuilt.keys(), used.keys() ^ rebuilt.keys()
    derived, difference = reference.constants(config), {}
    for key, value in used.items():
        assert (value.shape, value.dtype) == (rebuilt[key].shape, rebuilt[key].dtype), key
        if not any(part in key for part in UNUSED):
            kind = key.rsplit(".", 1)[-1] if key in (MEL, TOKENS, *derived) else "weights"
            rows = stored[TOKENS + ".rows"].long() if key == TOKENS else ...
            gap = (value[rows].double() - rebuilt[key][rows].double()).abs().max()
            difference[kind] = max(difference.get(kind, 0.0), float(gap))
    print("largest difference of the rebuilt checkpoint:", difference)
    assert not any(difference.values()), difference


def audio(source: Reference) -> dict[str, Tensor]:
    """Stage tensors (every other one of the log-mel frames) and zero-shot logits of CLIPS."""
    order = list(source.clips)
    rows = [order.index(clip) for clip in CLIPS]
    tables, melw = source.tables, source.tables["audio_eval_melw"]
    tensors = {f"audio_eval/{key}": tables["audio_eval"][key][rows] for key in AUDIO}
    for name in ("audio_eval", "audio_eval_melw"):
        tensors[f"{name}/logmel_frames"] = tables[name]["logmel_frames"][rows][:, ::2]
        tensors[f"{name}/frame_index"] = tables[name]["frame_index"][::2]
    tensors["audio_eval_melw/embedding"] = melw["embedding"][rows]
    tensors |= {
        f"audio_eval_melw/{key}": value
        for key, value in reference.sparse(melw["melW"], "melW").items()
    }
    tensors |= {f"audio_eval/{key}": value for key, value in faint(source).items()}
    return {**tensors, "zeroshot/logits": tables["zeroshot"]["logits"][rows]}


def faint(source: Reference) -> dict[str, Tensor]:
    """The samples under the frame FAINT, as frame 2 of an excerpt, and its log-mel."""
    clip, row = FAINT
    table, settings = source.tables["audio_eval"], source.facts["config"]["audio"]
    hop, centre = settings["hop_size"], settings["hop_size"] * int(table["frame_index"][row])
    excerpt = source.clips[clip][centre - 2 * hop : centre + settings["n_fft"] // 2]
    return {
        "faint_wave": excerpt,
        "faint_logmel": table["logmel_frames"][list(source.clips).index(clip), row],
    }


def preprocess(source: Reference) -> dict[str, Tensor]:
    table, kept = source.tables["preprocess"], {}
    for stem in (name.rsplit(".", 1)[0] for name in FILES):
        kept[f"preprocess/{stem}.first"] = table[f"{stem}.first"][:EDGE].clone()
        kept[f"preprocess/{stem}.last"] = table[f"{stem}.last"][-EDGE:].clone()
        kept[f"preprocess/{stem}.every997"] = table[f"{stem}.every997"]
    return kept


def text(source: Reference) -> dict[str, Tensor]:
    keys = ["input_ids", "attention_mask", "embedding_norm", "embedding_f64"]
    return {f"text_eval/{key}": source.tables["text_eval"][key] for key in keys}


def training(source: Reference) -> dict[str, Tensor]:
    """The three trajectories.

    What they share is kept once, under coop; the float64 copies of parameters are not.
    """
    once = [*COMMON, "init.sos", "init.classes_pad"]
    left_out = [
        "logits_first",
        "logits_last",
        "final.ctx_f64",
        "final.lambdas_f64",
    ]  # logits_all has the first two
    tensors = {}
    for method in METHODS:
        for key, value in source.tables[f"train_{method}"].items():
            if key in once and method != "coop":
                assert torch.equal(value, source.tables["train_coop"][key]), key
            elif key not in left_out:
                tensors[f"train_{method}/{key}"] = value
    return tensors


def facts(source: Reference) -> dict:
    """The JSON part; a few-shot draw as rows of the CSV."""
    table = source.facts["fewshot"]["csv"]
    row = {line.split(",")[0]: index for index, line in enumerate(table.splitlines()[1:])}
    cases = [
        {
            "num_shots": case["num_shots"],
            "seed": case["seed"],
            "rows": [row[path] for path in case["paths"]],
        }
        for case in source.facts["fewshot"]["cases"]
        if case["num_shots"] > 0
    ]
    return {
        **source.facts,
        "clips": CLIPS,
        "files": {name: source.facts["files"][name] for name in FILES},
        "fewshot": {"csv": table, "cases": cases},
        "full_keys": reference.tree(source.facts["full_keys"]),
    }


if __name__ == "__main__":
    main()
