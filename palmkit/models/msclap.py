"""MS-CLAP 2023 as a model of the kit: `load_model("msclap:FOLDER")`. It needs `palmkit[clap]`.

The audio side is PENGI's: HTS-AT and a projection, clips of 7 s at 44.1 kHz, channels one after the
other, shorter clips repeated. Of longer files a crop is taken, as for every model of the kit; the
public package draws another one in every call. The text side is GPT-2 and a projection.

A text becomes token ids thus, as in the public package:
- " <|endoftext|>" is put behind it, which is two tokens. GPT-2 has no token for the start.
- Token 0, which is "!", fills it up to 77 tokens. A longer text is an error.
- The embedding is read at the token whose place is the number of ids that are not 0, less one: at
  the last one, <|endoftext|>. Each "!" in a text is token 0 too. So it moves this place one token
  to the front, and the tokens behind this place have no effect.

Licence, training data, prompt and these rules are from memory of the public package `msclap`: its
weights were not at hand.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path

import torch

from palmkit.checksums import verify_folder
from palmkit.models.base import choose_device
from palmkit.models.checkpoint import (
    CheckpointError,
    add_stft_kernels,
    check_depths,
    merge_config,
    read_checkpoint,
    read_config,
)
from palmkit.models.encoders import AudioEncoder
from palmkit.models.gpt2 import END, Gpt2Encoder, Gpt2Tokenizer, read_tokenizer
from palmkit.models.msclap_checkpoint import (
    MSCLAP_ASSUMED,
    MSCLAP_CONFIG,
    MSCLAP_SIZES,
    SCALE,
    build,
    check_config,
    check_kind,
    load_weights,
    read_sizes,
)
from palmkit.models.pengi import HtsatModel
from palmkit.models.prompt_checks import check_length, check_prompts

PROMPT = "this is the sound of {}"  # of the public package's zero-shot example
POLICY = "MS-CLAP 2023 of palmkit 1"  # raise it if something here changes a text embedding
PREFIX = "msclap:"  # of a name of `load_model`
WEIGHTS_FILE = "CLAP_weights_2023.pth"  # the public name
SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
LICENCE = "code MIT, weights MS-PL (from memory)"
TRAINING_DATA = (
    "about 4.6 million pairs of audio and text (from memory; Elizalde, Deshmukh, Wang 2023, "
    "arXiv 2309.05767)"
)
NOT_PENGI = "not PENGI: the published numbers are of another model"


class MsClap(HtsatModel):
    """HTS-AT and GPT-2, frozen, as an AudioTextModel with PromptableText."""

    prompt = PROMPT
    special_tokens = (0, 2)  # nothing in front of a text, " " and <|endoftext|> behind it
    about: dict[str, str] = {}  # licence, revision and training data of weights from a file

    def __init__(
        self,
        audio: AudioEncoder,
        text: Gpt2Encoder,
        tokenizer: Gpt2Tokenizer,
        logit_scale: float,
        config: dict,
        device: torch.device,
        name: str = "MS-CLAP",
    ):
        super().__init__(audio, text, config, device, name)
        self.tokenizer, self.logit_scale = tokenizer, logit_scale
        self.note = NOT_PENGI
        vocabulary = text.token_embedding.num_embeddings
        if len(tokenizer) != vocabulary:
            raise CheckpointError(
                f"the tokenizer has {len(tokenizer)} tokens, and the text encoder {vocabulary}: "
                "they are not of one model"
            )

    def tokenize(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask of each prompt, both [n, 77] int64.

        The mask is 1 up to the token where the embedding is read. Tokens behind it, which a prompt
        with "!" has, are hidden anyway, as the text encoder is causal.
        Raises ValueError for a prompt that does not fit.
        """
        check_prompts(prompts)
        longest = self.text.max_tokens
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens = self.tokenizer.encode(f"{prompt} {END}")
            check_length(prompt, len(tokens), longest)
            ids[row, : len(tokens)] = torch.tensor(tokens)
        read = (ids != 0).sum(1, keepdim=True)
        return ids, (torch.arange(longest) < read).long()

    def settings(self, encoder: str) -> dict:
        """What changes embeddings of "audio" or "text", besides the weights. The logit scale is
        among the text's."""
        settings = {**MSCLAP_ASSUMED[encoder], **self.config[encoder]}
        if encoder == "text":
            settings |= {"policy": POLICY, "logit_scale": self.logit_scale}
            settings |= {"vocabulary": self.tokenizer.vocabulary, "merges": self.tokenizer.merges}
        return settings


def is_msclap(name: str) -> bool:
    """Whether a name of `load_model` is one for `load_msclap`."""
    return name.startswith(PREFIX)


def load_msclap(name, device="auto", config: dict | None = None) -> MsClap:
    """MS-CLAP 2023 from its checkpoint, with GPT-2's tokenizer beside it.

    name: CLAP_weights_2023.pth, a safetensors file with the same tensors, or the folder of one such
        file. In the same folder are vocab.json and merges.txt of GPT-2, or its tokenizer.json.
    device: "auto" is CUDA if there is one.
    config: a dict, or None for a `config.json` beside the checkpoint if there is one, else
        MS-CLAP's own values.
    Raises FileNotFoundError if there is no such file; CheckpointError naming each missing,
    unexpected or misshapen tensor, or what else is wrong; ModuleNotFoundError if `palmkit[clap]` is
    not installed.
    """
    path = find_checkpoint(Path(str(name).removeprefix(PREFIX)).expanduser())
    try:
        return _load(path, config, choose_device(device))
    except CheckpointError as error:
        if path.name in str(error):
            raise
        raise CheckpointError(f"{path.name}: {error}") from error


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path names: a file, or the one in a folder."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no file or folder {path}. {WEIGHTS_FILE} is in the repository "
            "microsoft/msclap of the Hugging Face hub; give its path after msclap:"
        )
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    names = ", ".join(file.name for file in found) or "none"
    raise CheckpointError(
        f"{path.resolve().name}: a folder must have {WEIGHTS_FILE} or one other checkpoint "
        f"({', '.join(SUFFIXES)}); found: {names}"
    )


def _load(path: Path, config: dict | None, device: torch.device) -> MsClap:
    if problem := verify_folder(path.parent):
        raise CheckpointError(problem)
    state = read_checkpoint(path, (SCALE,), "MS-CLAP")
    check_kind(state)
    config = read_config(path, MSCLAP_CONFIG) if config is None else config
    settings = merge_config(config, MSCLAP_CONFIG)
    state = add_stft_kernels(state, config)
    sizes = read_sizes(state)
    check_config(config, sizes, path)
    if "num_attention_heads" not in config.get("text", {}):
        check_depths(sizes, MSCLAP_SIZES, "MS-CLAP 2023")
        if sizes != MSCLAP_SIZES:
            warnings.warn(
                f"{path.name} is not of MS-CLAP's size: {settings['text']['num_attention_heads']} "
                "text heads are assumed; put a config.json beside it or pass config=",
                stacklevel=4,
            )
    with torch.random.fork_rng(devices=[]):  # initial values, which the checkpoint replaces
        audio, text = build(sizes, settings)
    load_weights(audio, text, state, path)
    tokenizer, scale = read_tokenizer(path.parent), read_scale(state)
    model = MsClap(audio, text, tokenizer, scale, settings, device, path.name)
    model.note = f"MS-CLAP from the file {path.name}, {NOT_PENGI}"
    with open(path, "rb") as file:
        model.checkpoint_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    model.about = {
        "licence": LICENCE,
        "revision": f"sha256 {model.checkpoint_sha256}",
        "training data": TRAINING_DATA,
    }
    return model


def read_scale(state: dict) -> float:
    """The logit scale, of which the checkpoint has the logarithm."""
    scale = float(state[SCALE].float().exp())
    if not (scale > 0 and math.isfinite(scale)):
        raise CheckpointError(f"{SCALE} is {float(state[SCALE])}, which gives a scale of {scale}")
    return scale
