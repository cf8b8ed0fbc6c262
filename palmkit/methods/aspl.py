"""ASPL: a gain and a bias for each channel inside the audio encoder, learned beside a prompt."""

from __future__ import annotations

import concurrent.futures
import os
import random

import torch

from palmkit import audio
from palmkit.embeddings import Embeddings, as_frame, list_labels, with_csv_row
from palmkit.methods.base import normalize
from palmkit.methods.coop import CoCoOp, CoOp
from palmkit.methods.palm import PALM
from palmkit.methods.support import check_number
from palmkit.models.pengi import round_features
from palmkit.models.stages import TunedAudio, log_mel_shape, make_stages, tuned_pengi
from palmkit.thread_pools import read_ahead

MOST_BYTES = 2**32  # of the log-mels of a support set, which are kept in memory
READ = 16  # clips that are decoded ahead


class ASPL:
    """What ASPL adds to a prompt method: x' = gain * x + bias at stages of the audio encoder.

    Learned: what the prompt method learns, and gain and bias at
      log_mel: the log-mel before bn0 (PENGI: 64 bands),
      patches: after the patch embedding (PENGI: 96 channels): together 320 numbers;
      stage1, in the variants with a star: after Swin's first stage (192 channels): 704 numbers.
    Gains start at 1 and biases at 0, so training starts at the prompt method. The encoders' weights
    stay as they are; gradients go through the audio encoder in every step.

    `fit` takes the log-mels of `read_inputs`, [n, frames * mel], instead of embeddings. `forward`
    takes embeddings of `audio_model()`, the encoder with what was learned.

    Published with lr .01 and 100 epochs, which a trial has to be given. The encoder is frozen here
    (`eval`). In train mode, as in the published code, bn0 subtracts each band's mean and divides by
    its deviation in the batch, which takes the gain and the bias at log_mel out again.

    audio_lr: learning rate of gains and biases; None: the same as that of the prompt.
    scale: of the logits; None is the model's.
    Source: arXiv 2606.15751. Written from the paper's description.
    """

    tunes_audio = True
    tuned_stages = ("log_mel", "patches")

    def __init__(self, model, class_names, seed=0, audio_lr=None, scale=None):
        check_number("audio_lr", audio_lr, optional=True)
        stages = make_stages(model, self.tuned_stages, self.label)
        super().__init__(model, class_names, seed, scale=scale)
        self.audio_lr, self.stages = audio_lr, stages
        self.input_shape = log_mel_shape(model)
        self.input_dim = self.input_shape[0] * self.input_shape[1]

    def encode(self, inputs) -> torch.Tensor:
        """Log-mels [b, frames * mel] -> unit embeddings [b, dim], with gradients."""
        encoder = TunedAudio(self.model.audio, self.stages).eval()
        log_mel = inputs.unflatten(-1, self.input_shape)
        return normalize(self.model.batched(encoder.encode, log_mel))

    def encode_inputs(self, inputs) -> torch.Tensor:
        """The same, rounded as the embeddings at test are; the gradient takes no notice of it."""
        features = self.encode(inputs)
        return features + (round_features(features) - features).detach()

    def parameter_groups(self) -> list[dict]:
        learned = {name: one for name, one in self.named_parameters() if one.requires_grad}
        tuned = [name for name in learned if name.startswith("stages.")]
        own = {} if self.audio_lr is None else {"lr": self.audio_lr}
        return [
            {"params": [one for name, one in learned.items() if name not in tuned]},
            {"params": [learned[name] for name in tuned]} | own,
        ]

    def audio_model(self):
        return tuned_pengi(self.model, self.stages)


class ASPLStar(ASPL):
    """ASPL with a third stage."""

    tuned_stages = ("log_mel", "patches", "stage1")


class PALMASPL(ASPL, PALM):
    __doc__ = ASPL.__doc__
    name = "palm-aspl"
    label = "PALM + ASPL"
    color = "#1b9e77"


class PALMASPLStar(ASPLStar, PALM):
    __doc__ = ASPL.__doc__
    name = "palm-aspl-star"
    label = "PALM + ASPL*"
    color = "#66a61e"


class CoOpASPL(ASPL, CoOp):
    __doc__ = ASPL.__doc__
    name = "coop-aspl"
    label = "COOP + ASPL"
    color = "#3182bd"


class CoOpASPLStar(ASPLStar, CoOp):
    __doc__ = ASPL.__doc__
    name = "coop-aspl-star"
    label = "COOP + ASPL*"
    color = "#08519c"


class CoCoOpASPL(ASPL, CoCoOp):
    __doc__ = ASPL.__doc__
    name = "cocoop-aspl"
    label = "COCOOP + ASPL"
    color = "#e6ab02"


class CoCoOpASPLStar(ASPLStar, CoCoOp):
    __doc__ = ASPL.__doc__
    name = "cocoop-aspl-star"
    label = "COCOOP + ASPL*"
    color = "#a6761d"


TUNED = (PALMASPL, PALMASPLStar, CoOpASPL, CoOpASPLStar, CoCoOpASPL, CoCoOpASPLStar)


def read_inputs(model, clips, crop="random", crop_seed=0) -> Embeddings:
    """The log-mels of clips, as `fit` of ASPL takes them: `features` is [n, frames * mel], on the
    CPU, in the model's type.

    clips, crop, crop_seed: as in `embed`, and a clip has the same crop as there, in every epoch.
    Nothing is kept on the disk. PENGI: 250 kB a clip. Raises ValueError for more than 4 GiB, and
    AudioError (path, and row of which CSV).
    """
    frame = as_frame(clips)
    paths = [str(path) for path in frame["path"]]
    frames, mel = log_mel_shape(model)
    needed = len(paths) * frames * mel * model.dtype.itemsize
    if needed > MOST_BYTES:
        raise ValueError(
            f"log-mels of {len(paths)} clips take {needed / 1e9:.1f} GB of memory, and "
            f"{MOST_BYTES / 1e9:.1f} GB is the limit: draw fewer shots"
        )
    samples = audio.count_samples(model.clip_seconds, model.sample_rate)

    def read(path: str) -> tuple[torch.Tensor, int]:
        rng = random.Random(f"{crop_seed}:{audio.file_digest(path)}")
        with audio.open_file(path) as file:
            return audio.read_crop(file, path, model.sample_rate, samples, crop, rng)

    features, offsets = torch.empty(len(paths), frames * mel, dtype=model.dtype), []
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for batch in read_ahead(pool, read, paths, READ):
                waveforms = torch.stack([waveform for waveform, _ in batch])
                rows = slice(len(offsets), len(offsets) + len(batch))
                features[rows] = _log_mel(model, waveforms).flatten(1).cpu()
                offsets += [offset for _, offset in batch]
        except audio.AudioError as error:
            raise audio.AudioError(with_csv_row(error, frame)) from error
        finally:
            pool.shutdown(cancel_futures=True)
    return Embeddings(features, list_labels(frame), paths, offsets)


@torch.no_grad()
def _log_mel(model, waveforms) -> torch.Tensor:
    return model.audio.log_mel(waveforms.to(model.device, model.dtype))
