"""LAION-CLAP as a model of the kit: `load_model("clap:FOLDER")`. It needs `palmkit[clap]`.

The networks, the log-mel and the tokenizer are those of `transformers` (4 or 5): `ClapModel` and
`ClapProcessor`. Weights are read from safetensors only, and code beside them is never run.

A file becomes an input of the model thus:
- It is resampled to 48 kHz. Of a file over 10 s a crop of 10 s is taken, as for every model of the
  kit (see `palmkit.audio.crop_clip`); the library would draw another crop in every call.
- A shorter file is repeated as often as it fits as a whole, and zeros follow ("repeatpad"). This is
  the library's way, and `padding` of its preprocessor config.
- A model with feature fusion gets no clip over 10 s, so it never fuses. The library marks a random
  clip of each batch as longer; here none is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from palmkit.checksums import sha256_of, verify_folder
from palmkit.extras import extra
from palmkit.models.base import choose_device
from palmkit.models.checkpoint import CheckpointError
from palmkit.models.precision import exact_convolutions
from palmkit.models.prompt_checks import check_length, check_prompts
from palmkit.padding import PADDINGS

log = logging.getLogger(__name__)

PROMPT = "This is a sound of {}."  # of the library's examples and of LAION-CLAP's evaluation
MAX_TOKENS = 2048  # of the text encoder at once: about 1 GB with gradients at RoBERTa's base size
CLIPS = {"cpu": 4}  # clips of the audio encoder at once; see `Clap.encode_audio`
MOST_CLIPS = 32  # the same on other devices
POLICY = "CLAP of palmkit 1"  # raise it if something here changes an embedding
PREFIX = "clap:"  # of a name of `load_model`
# The makers of CLAP on the Hugging Face hub: their names are taken without the prefix.
LAION = re.compile(r"laion/[\w.-]+(@.*)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_NAME = re.compile(r"(?P<name>\w[\w.-]*/[\w.-]+)(@(?P<revision>.*))?")
# As its makers say: the page of the model, and arXiv 2211.06687.
LAION_FACTS = {
    "licence": "Apache-2.0",
    "training data": "LAION-Audio-630K with AudioCaps, Clotho and AudioSet; its page says more",
}
# What ClapProcessor is read from: one of these groups of files for each part. The library makes an
# empty tokenizer where there is none.
PROCESSOR_FILES = {
    "processor's config": [["processor_config.json"], ["preprocessor_config.json"]],
    "tokenizer": [["tokenizer.json"], ["vocab.json", "merges.txt"]],
}
# Buffers that follow from the sizes. Files of some versions of the library have them.
DERIVED = re.compile(r"\.(position_ids|token_type_ids|relative_position_index)$")
# Fields of a config that change no embedding, or that one major version has elsewhere than the
# other. `check_fit` holds position_embedding_type, and the text's digest names pad_token_id.
LEFT_OUT = ("bos_token_id", "eos_token_id", "pad_token_id", "position_embedding_type", "use_cache")


class Clap:
    """A frozen ClapModel with its processor, as an AudioTextModel with PromptableText."""

    prompt = PROMPT
    dtype = torch.float32

    def __init__(self, network, processor, device: torch.device, name: str = "CLAP", note=""):
        """network: a `transformers.ClapModel`. processor: its `ClapProcessor`."""
        self.network = network.to(device, torch.float32).eval().requires_grad_(False)
        self.extractor, self.tokenizer = processor.feature_extractor, processor.tokenizer
        self.tokenizer.padding_side = "right"
        self.device, self.name, self.note = device, name, note
        self.sample_rate = self.extractor.sampling_rate
        self.clip_seconds = float(self.extractor.max_length_s)
        self.padding = self.extractor.padding  # of clips that are shorter: see `crop_clip`
        self.dim = network.config.projection_dim
        self.text_width = network.config.text_config.hidden_size
        self.logit_scale = float(network.logit_scale_a.exp())  # of logits of audio on texts
        check_fit(self)

    @property
    def first_position(self) -> int:
        """Of a text's first token: RoBERTa's positions start behind padding's."""
        return self.network.config.text_config.pad_token_id + 1

    @property
    def max_tokens(self) -> int:
        """Tokens that the text encoder takes, with the first and the last."""
        return self.network.config.text_config.max_position_embeddings - self.first_position

    # Audio

    @exact_convolutions()
    def encode_audio(self, waveforms) -> torch.Tensor:
        """Waveforms [n, samples] at `sample_rate` -> unit embeddings [n, dim], float32, no
        gradient.

        Those under `clip_seconds` are repeated as the processor says. Raises ValueError for longer
        ones: which part counts is the caller's choice. CPU batches are always four clips, so a
        clip's result does not depend on its neighbours.
        """
        waveforms = torch.as_tensor(waveforms, dtype=torch.float32)
        shape, longest = list(waveforms.shape), round(self.clip_seconds * self.sample_rate)
        if len(shape) != 2 or 0 in shape or shape[1] > longest:
            raise ValueError(
                f"encode_audio of {self.name} takes waveforms [n, samples] of {longest} samples at "
                f"most ({self.clip_seconds:g} s at {self.sample_rate} Hz), not of shape {shape}"
            )
        most = CLIPS.get(self.device.type, MOST_CLIPS)
        parts = [self._encode_clips(part, most) for part in waveforms.split(most)]
        return torch.cat(parts)

    def _encode_clips(self, waveforms: torch.Tensor, most: int) -> torch.Tensor:
        """At most `most` waveforms [n, samples] -> unit embeddings [n, dim]."""
        n = len(waveforms)
        features = self.log_mel(waveforms).to(self.device)
        if self.device.type == "cpu":
            features = torch.cat([features, features.new_zeros(most - n, *features.shape[1:])])
        none = torch.zeros(len(features), 1, dtype=torch.bool, device=self.device)
        with torch.inference_mode():
            answer = self.network.get_audio_features(input_features=features, is_longer=none)
            embedding = F.normalize(answer_tensor(answer)[:n], dim=-1)
        return embedding.clone()  # outside of inference mode: autograd accepts it as an input

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Waveforms [n, samples] -> the library's log-mels [n, 1 or 4, frames, mels], on the CPU.

        Fused models have four channels, all the same, as no clip is longer than `clip_seconds`.
        """
        clips = list(waveforms.cpu().numpy())
        with same_random_numbers():
            made = self.extractor(clips, sampling_rate=self.sample_rate, return_tensors="pt")
        return made["input_features"].float()

    # Text

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> unit embeddings [n, dim]. Raises ValueError for a prompt that is too long."""
        ids, mask = self.tokenize(prompts)
        with torch.inference_mode():
            tokens = self.embed_tokens(ids)
            text = self.encode_embeddings(tokens[:1, :1], tokens[:, 1:], mask.sum(1) - 1)[0]
            text = F.normalize(text, dim=-1)
        return text.clone()

    def tokenize(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask of the prompts, both [n, tokens of the longest] int64."""
        check_prompts(prompts)
        made = self.tokenizer(list(prompts), padding=True, return_tensors="pt")
        ids, mask = made["input_ids"], made["attention_mask"]
        longest = int(mask.sum(1).argmax())
        check_length(prompts[longest], ids.shape[1], self.max_tokens)
        return ids, mask

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [...] -> token embeddings [..., text_width]."""
        return self.network.text_model.get_input_embeddings()(ids.to(self.device))

    def encode_embeddings(self, prefix, suffix, lengths) -> torch.Tensor:
        """prefix [b, p, width], suffix [c, s, width], lengths [c] -> [b, c, dim], differentiable.

        In RoBERTa every token sees all others, so no prefix can be shared: each of the b * c
        sentences is computed as a whole. They run in chunks of MAX_TOKENS tokens, each padded to
        its own longest sentence, and padding is masked. Sentences of like lengths are put together.
        If there are several chunks, their activations are computed again in the backward pass.
        """
        b, p, c = len(prefix), prefix.shape[1], len(suffix)
        true = [p + int(length) for length in lengths] * b  # tokens of sentence n = (clip, class)
        if max(true) > self.max_tokens:
            raise ValueError(
                f"{max(true)} tokens are too many: {self.name} takes {self.max_tokens}; "
                "shorten the context or the class names"
            )
        order = sorted(range(b * c), key=true.__getitem__)
        chunks = split_by_tokens(order, true, MAX_TOKENS)
        again = len(chunks) > 1 and torch.is_grad_enabled()
        parts = []
        for chunk in chunks:
            rows = torch.tensor(chunk, device=prefix.device)
            longest = true[chunk[-1]]
            pieces = (prefix[rows // c], suffix[rows % c, : longest - p])
            sizes = torch.tensor([true[n] for n in chunk], device=prefix.device)
            if again:
                settings = dict(use_reentrant=False, preserve_rng_state=False)
                parts.append(checkpoint(self._encode_sentences, *pieces, sizes, **settings))
            else:
                parts.append(self._encode_sentences(*pieces, sizes))
        places = torch.empty(b * c, dtype=torch.long, device=prefix.device)
        places[torch.tensor(order, device=prefix.device)] = torch.arange(
            b * c, device=prefix.device
        )
        return torch.cat(parts)[places].unflatten(0, (b, c))

    def _encode_sentences(self, prefix, suffix, true) -> torch.Tensor:
        """prefix [n, p, width], suffix [n, s, width], tokens [n] that are true -> [n, dim]."""
        tokens = torch.cat([prefix, suffix], 1)
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.network.text_model(
            inputs_embeds=tokens,
            attention_mask=(steps < true[:, None]).long(),
            position_ids=(steps + self.first_position).expand(len(tokens), -1),
        )
        return self.network.text_projection(hidden.pooler_output)

    # Identity

    def audio_digest(self) -> str:
        """sha256 of all that changes an audio embedding; independent of the text encoder."""
        return self._digest(("audio",))

    def digest(self) -> str:
        """sha256 of weights as they are now, configs, log-mel, tokenizer and logit scale.

        The note is not included, nor what the library's version does.
        """
        return self._digest(("audio", "text", "logit_scale"))

    def _digest(self, parts: tuple[str, ...]) -> str:
        sha = hashlib.sha256(POLICY.encode())
        text = self.network.config.text_config
        about = {
            "audio": [list_fields(self.network.config.audio_config), extractor_fields(self)],
            "text": [list_fields(text), text.pad_token_id, tokenizer_fields(self)],
            "logit_scale": [],
        }
        for part in parts:
            sha.update(json.dumps([part, about[part]], sort_keys=True).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            if name.startswith(parts) and not DERIVED.search(name):
                sha.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
                sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()


def answer_tensor(answer) -> torch.Tensor:
    """Features [n, dim] of `get_audio_features`: a tensor (transformers 4), or an object that has
    them as its pooler_output (transformers 5)."""
    return answer if isinstance(answer, torch.Tensor) else answer.pooler_output


@contextlib.contextmanager
def same_random_numbers():
    """Put NumPy's global generator back: the library draws from it without need."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


def split_by_tokens(order: list[int], sizes: list[int], most: int) -> list[list[int]]:
    """Sentences in the order of their sizes, in chunks that have `most` tokens with padding."""
    chunks: list[list[int]] = [[]]
    for n in order:
        if chunks[-1] and (len(chunks[-1]) + 1) * sizes[n] > most:
            chunks.append([])
        chunks[-1].append(n)
    return chunks


def list_fields(config) -> dict:
    """The fields of a config that are of CLAP, without those that every config has."""
    from transformers import PretrainedConfig

    generic = {*PretrainedConfig().to_dict(), *LEFT_OUT}
    return {key: value for key, value in config.to_dict().items() if key not in generic}


def extractor_fields(model: Clap) -> dict:
    """The settings of the log-mel."""
    names = ("_processor_class", "processor_class", "feature_extractor_type")
    return {k: v for k, v in model.extractor.to_dict().items() if k not in names}


def tokenizer_fields(model: Clap) -> dict:
    """The tokenizer's rules and vocabulary, without the settings of its last call."""
    rules = json.loads(model.tokenizer.backend_tokenizer.to_str())
    return {key: value for key, value in rules.items() if key not in ("truncation", "padding")}


def check_fit(model: Clap) -> None:
    """Raise CheckpointError if the parts of a model do not belong together."""
    audio, text = model.network.config.audio_config, model.network.config.text_config
    extractor, tokenizer = model.extractor, model.tokenizer
    problems = []
    if not 0 < model.logit_scale < math.inf:
        problems.append(
            f"logit_scale_a is {float(model.network.logit_scale_a):g}, which gives a scale of "
            f"{model.logit_scale:g}"
        )
    if model.padding not in PADDINGS:
        problems.append(f"padding={model.padding!r} of the processor is not {', '.join(PADDINGS)}")
    if extractor.feature_size != audio.num_mel_bins:
        problems.append(
            f"the processor makes {extractor.feature_size} mel bands, "
            f"and the audio encoder takes {audio.num_mel_bins}"
        )
    if (extractor.truncation == "fusion") != bool(audio.enable_fusion):
        problems.append(
            f"truncation={extractor.truncation!r} of the processor belongs to a model "
            f"{'with' if extractor.truncation == 'fusion' else 'without'} feature fusion, "
            f"and the config says enable_fusion={audio.enable_fusion}"
        )
    if len(tokenizer) > text.vocab_size:
        problems.append(
            f"the tokenizer has {len(tokenizer)} tokens, and the text encoder {text.vocab_size}"
        )
    if tokenizer.pad_token_id != text.pad_token_id:
        problems.append(
            f"padding is token {tokenizer.pad_token_id} of the tokenizer, "
            f"and {text.pad_token_id} of the text encoder"
        )
    if getattr(text, "position_embedding_type", "absolute") != "absolute":
        problems.append(f"position_embedding_type={text.position_embedding_type!r} is not read")
    ids = tokenizer("a")["input_ids"]
    if (ids[0], ids[-1]) != (tokenizer.cls_token_id, tokenizer.sep_token_id):
        problems.append("the tokenizer does not put its first and last token around a text")
    if problems:
        raise CheckpointError(f"{model.name}: {'; '.join(problems)}")


def is_clap(name: str) -> bool:
    """Whether a name of `load_model` is one for `load_clap`."""
    is_file = Path(name).expanduser().exists()
    return name.startswith(PREFIX) or bool(LAION.fullmatch(name) and not is_file)


def load_clap(name, device="auto") -> Clap:
    """A CLAP model from a folder as `save_pretrained` of ClapModel and ClapProcessor writes it, or
    from the Hugging Face hub.

    name: a folder, "laion/clap-htsat-unfused@COMMIT", or the same without a commit. The hub is
        then asked which commit it is now, and a message says it.
    device: "auto" is CUDA if there is one.
    Raises FileNotFoundError if there is no such folder, or if the hub cannot be asked;
    CheckpointError for what cannot be read or does not fit; ModuleNotFoundError if `palmkit[clap]`
    is not installed.
    """
    name = str(name).removeprefix(PREFIX)
    folder = Path(name).expanduser()
    found = HUB_NAME.fullmatch(name)
    if not name:
        raise FileNotFoundError(f"behind {PREFIX} goes a folder, or a name of the hub")
    if folder.is_dir():
        check_folder(folder)
        source, settings, title = folder, {"local_files_only": True}, folder.resolve().name
        note, about = f"CLAP from the folder {title}", describe_folder(folder)
    elif found:
        source = title = found["name"]
        commit = find_commit(title, found["revision"])
        settings = {"revision": commit}
        note = f"{title} of the Hugging Face hub, commit {commit}"
        about = {"revision": commit} | (LAION_FACTS if LAION.fullmatch(title) else {})
    else:
        raise FileNotFoundError(f"there is no folder {name!r}")
    network, processor = read_pretrained(source, title, settings)
    note += ", not PENGI: the published numbers are of another model"
    model = Clap(network, processor, choose_device(device), title, note)
    model.about = about
    return model


def find_commit(repository: str, revision: str | None) -> str:
    """The commit (40 digits) of a model on the hub, of a branch, or of a commit that is named.

    Raises FileNotFoundError if the hub must be asked and does not answer.
    """
    if COMMIT.fullmatch(revision or ""):
        return revision
    try:
        commit = ask_hub(repository, revision)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # no network, no such model or branch: its errors are of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(
            f"there is no folder {repository!r}, and the Hugging Face hub does not say which "
            f"commit it is now ({reason}). Without a network name a folder, or a commit that was "
            f"fetched before: {repository}@COMMIT, 40 digits of 0-9 and a-f"
        ) from error
    log.warning(
        "%s is now commit %s. To get the same model later: %s@%s",
        repository,
        commit,
        repository,
        commit,
    )
    return commit


def ask_hub(repository: str, revision: str | None) -> str:
    """The commit of a branch; None is the main one. Raises what the hub's client raises.

    Without a network that is an error of the client's HTTP library, which is no OSError.
    """
    with extra("clap"):
        from huggingface_hub import HfApi
    return HfApi().model_info(repository, revision=revision, timeout=30).sha


def describe_folder(folder: Path) -> dict[str, str]:
    """What a folder says of its model: the licence in the model card, and the files' sha256."""
    files = sorted(folder.glob("*.safetensors"))
    digests = [f"{file.name} {sha256_of(file)}" for file in files]
    about = {"revision": "sha256 of " + ", ".join(digests)}
    card = folder / "README.md"
    if card.is_file():
        with extra("clap"):
            from huggingface_hub import ModelCard
        with contextlib.suppress(ValueError):  # a card without these facts
            about["licence"] = ModelCard.load(card).data.license
    return about


def check_folder(folder: Path) -> None:
    """Raise CheckpointError if a folder has no weights that are read, or files were changed."""
    if problem := verify_folder(folder):
        raise CheckpointError(problem)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder.name}: config.json is missing: it is no folder of a model")
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder.name}: no safetensors file is in it; other files of weights are not read, "
            "as they may hold code. Write it by save_pretrained of the library"
        )
    for part, ways in PROCESSOR_FILES.items():
        if not any(all((folder / file).is_file() for file in files) for files in ways):
            names = " or ".join(" with ".join(files) for files in ways)
            raise CheckpointError(
                f"{folder.name}: the {part} is missing ({names}). Save it into the same folder: "
                "ClapProcessor.from_pretrained(NAME).save_pretrained(FOLDER)"
            )


def read_pretrained(source, title: str, settings: dict) -> tuple:
    """ClapModel and ClapProcessor of a folder or a hub name, whole. Raises CheckpointError."""
    with extra("clap"):
        from transformers import ClapModel, ClapProcessor
        from transformers.utils import logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its table of tensors that do not fit: they are named below
    try:
        network, loading = ClapModel.from_pretrained(
            source,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # else the error does not say which
            **settings,
        )
        processor = ClapProcessor.from_pretrained(source, trust_remote_code=False, **settings)
    except MemoryError:
        raise
    except Exception as error:  # what broken files raise in the library is not a closed list
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{title}: cannot be loaded as a CLAP model: {reason[0]}") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    problems = [
        f"{kind}: {key if isinstance(key, str) else key[0]}"
        for kind in ("missing", "unexpected", "mismatched")
        for key in sorted(loading[f"{kind}_keys"])
        if not DERIVED.search(key if isinstance(key, str) else key[0])
    ]
    problems += [f"not finite: {k}" for k, v in network.state_dict().items() if not is_finite(v)]
    if problems:
        more = [f"... and {len(problems) - 20} more"] if len(problems) > 20 else []
        lines = [f"{title} does not fit ClapModel:", *problems[:20], *more]
        raise CheckpointError("\n  ".join(lines))
    return network, processor


def is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
