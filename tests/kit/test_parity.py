"""Exactness of the encoders and of reading audio: each stage against tensors of the published
code.
"""

import copy
import random

import make_fixture
import pytest
import soundfile
import torch
import torch.nn.functional as F
from reference import FIXTURES, MEL, absolute, read_table, relative, within, write_checkpoint

from palmkit import ZeroShot, load_pengi, read_clip

pytestmark = pytest.mark.usefixtures("one_thread")
CLIP = 308_700
AUDIO = 1e-4  # relative, per clip
WAVEFORM, LOSSY = 1e-6, 2e-5  # absolute; what Vorbis decodes to depends on the decoder
TEXT = 1e-5  # relative, per prompt
DECIBEL = 1e-2  # absolute
LOGIT = 3e-3  # absolute


@pytest.fixture(scope="module")
def stages(source, pengi):
    """What each stage of the audio encoder makes of the clips."""
    with torch.no_grad():
        waves = source.waves()
        log_mel = pengi.audio.log_mel(waves)
        image = pengi.audio.image(log_mel)
        latent = pengi.audio.pooled(image)
        embedding = pengi.audio.projection(latent)
        return dict(
            log_mel=log_mel,
            image=image,
            latent=latent,
            embedding=embedding,
            unit=pengi.encode_audio(waves),
        )


def check_log_mel(log_mel, table, stage, source):
    assert log_mel.shape[1:] == (965, 64)
    frames, expected = log_mel[:, table["frame_index"]], table["logmel_frames"]
    within(AUDIO, relative(frames, expected), f"{stage}, relative", source.name)
    within(DECIBEL, absolute(frames, expected), f"{stage}, dB", source.name)


def check_means(got, table, name, limit, source):
    """The mean and mean magnitude of a whole stage, of which the table has only parts."""
    got = got.double().flatten(1)
    means, magnitudes = table[f"{name}_mean"], table[f"{name}_abs_mean"]
    within(limit, absolute(got.mean(1), means), f"{name} mean", source.name)
    within(limit, absolute(got.abs().mean(1), magnitudes), f"{name} mean magnitude", source.name)


def test_log_mel(source, stages):
    table = source.tables["audio_eval"]
    check_log_mel(stages["log_mel"], table, "log-mel", source)
    check_means(stages["log_mel"], table, "logmel", 1e-3, source)


def test_silence_is_the_floor(pengi):
    """10 log10(max(x, 1e-10)): the smallest power counts as -100 dB."""
    assert (
        absolute(pengi.audio.log_mel(torch.zeros(1, CLIP)), torch.full((1, 965, 64), -100.0)) < 1e-4
    )


def test_faint_band(compact, tiny_pengi):
    """Bands at -93 dB beside loud ones, from an excerpt: a Fourier transform in float32 is off
    by 0.02 dB here.
    """
    table = compact.tables["audio_eval"]
    frame = tiny_pengi.audio.log_mel(table["faint_wave"][None].float() / 32768)[0, 2]
    within(
        DECIBEL, absolute(frame, table["faint_logmel"]), "log-mel of a faint band, dB", "compact"
    )


def test_constants_without_a_config(source, stages):
    """base.pth comes without a config.json, so the package's own constants must be PENGI's; only
    the heads are not.
    """
    heads = {"text": {"num_attention_heads": source.facts["config"]["text"]["num_attention_heads"]}}
    own = load_pengi(source.checkpoint, device="cpu", config=heads)
    assert relative(own.encode_audio(source.waves()), stages["unit"]).max() < 1e-6
    table = source.tables["text_eval"]
    within(
        TEXT,
        relative(own.encode_text(source.facts["prompts"]), table["embedding_norm"]),
        "text, unit",
        source.name,
    )
    assert float(own.audio.log_mel(torch.zeros(1, CLIP)).min()) == pytest.approx(-100)
    assert own.audio.bn0.momentum == source.facts["config"]["audio"]["bn_momentum"]


def test_image(source, stages):
    table, image = source.tables["audio_eval"], stages["image"]
    assert image.shape[1:] == (1, 256, 256)
    within(
        AUDIO,
        relative(image[:, 0, ::8, ::8], table["image_grid8"]),
        "image, every eighth",
        source.name,
    )
    check_means(image, table, "image", 1e-4, source)
    if source.name == "full":
        rows = image[:, 0, table["image_row_index"]]
        within(AUDIO, relative(rows, table["image_rows"]), "image, rows", source.name)


def test_fused_attention_is_the_unfused_one(tiny_pengi, compact):
    """timm leaves it off; it is on in every block here and changes no more than the last bits."""
    unfused = copy.deepcopy(tiny_pengi.audio)
    blocks = [block for stage in unfused.trunk.layers for block in stage.blocks]
    assert all(block.attn.fused_attn for block in blocks)
    for block in blocks:
        block.attn.fused_attn = False
    with torch.no_grad():
        image = unfused.image(unfused.log_mel(compact.waves()))
        got, expected = tiny_pengi.audio.pooled(image), unfused.pooled(image)
    assert relative(got, expected).max() < 1e-6


@pytest.mark.parametrize("stage", ["latent", "embedding"])
@pytest.mark.parametrize("precision", ["", "_f64"])
def test_latent_and_projection(source, stages, stage, precision):
    expected = source.tables["audio_eval"][stage + precision]
    within(AUDIO, relative(stages[stage], expected), f"audio {stage}{precision}", source.name)


def test_unit_embedding(source, stages):
    table = source.tables["audio_eval"]
    within(AUDIO, relative(stages["unit"], table["embedding_norm"]), "audio, unit", source.name)
    within(
        AUDIO,
        relative(stages["unit"], F.normalize(table["embedding_f64"])),
        "audio, unit_f64",
        source.name,
    )


def test_mel_matrix_is_the_checkpoint_s(source, tmp_path):
    """With another filter bank in the checkpoint: whoever computes the usual one instead of
    loading it fails here.
    """
    table = source.tables["audio_eval_melw"]
    state = {**source.state(), MEL: table["melW"]}
    pengi = load_pengi(
        write_checkpoint(tmp_path / "melw.pth", state, source.facts["config"]), device="cpu"
    )
    with torch.no_grad():
        log_mel = pengi.audio.log_mel(source.waves())
        embedding = pengi.audio.projection(pengi.audio.pooled(pengi.audio.image(log_mel)))
    check_log_mel(log_mel, table, "log-mel, other mel matrix", source)
    within(
        AUDIO,
        relative(embedding, table["embedding"]),
        "audio embedding, other mel matrix",
        source.name,
    )


@pytest.mark.slow
def test_bn0_in_train_mode(full):
    """What the released trainer's model.train() does to bn0: batch statistics now, running
    statistics afterwards.
    """
    pengi, table, waves = (
        load_pengi(full.checkpoint, device="cpu"),
        full.tables["bn0_train"],
        full.waves(),
    )
    bn0 = pengi.audio.bn0.train()
    with torch.no_grad():
        for step, batch in enumerate(table["batches"], start=1):
            image = pengi.audio.image(pengi.audio.log_mel(waves[batch]))
            if step == 1:
                embedding = pengi.audio.projection(pengi.audio.pooled(image))
                expected = table["embedding_batchstats_batch0"]
                within(
                    AUDIO,
                    relative(embedding, expected),
                    "audio embedding, batch statistics",
                    full.name,
                )
            for name in ("running_mean", "running_var"):
                got, expected = getattr(bn0, name)[None], table[f"{name}_{step}"][None]
                within(
                    AUDIO,
                    relative(got, expected),
                    f"bn0 {name} in train mode",
                    full.name,
                    f"after batch {step}",
                )
        bn0.eval()
        embedding = pengi.audio.projection(
            pengi.audio.pooled(pengi.audio.image(pengi.audio.log_mel(waves)))
        )
    within(
        AUDIO,
        relative(embedding, table["embedding_after_drift"]),
        "audio embedding, bn0 after training",
        full.name,
    )


# From file to waveform.


def test_read_clip(source):
    """Decoding, resampling, channels, tiling, the random crop and how much of the generator it
    used.
    """
    table = source.tables["preprocess"]
    for name, fact in source.facts["files"].items():
        limit = LOSSY if name.endswith(".ogg") else WAVEFORM
        rng, before = random.Random(fact["random_seed"]), random.getstate()
        clip = read_clip(source.preprocess / name, rng=rng)
        assert clip.shape == (CLIP,) and clip.dtype == torch.float32, name
        assert rng.random() == fact["python_random_after"], name
        assert random.getstate() == before, f"{name}: the global generator was used"
        first, last, every = (
            table[f"{name.rsplit('.', 1)[0]}.{part}"] for part in ("first", "last", "every997")
        )
        within(limit, absolute(clip[: len(first)], first), "waveform, start", source.name, name)
        within(limit, absolute(clip[-len(last) :], last), "waveform, end", source.name, name)
        within(limit, absolute(clip[::997], every), "waveform, every 997th", source.name, name)
        magnitude = clip.double().abs().mean() - fact["abs_sum"] / CLIP
        within(1e-6, magnitude.abs(), "waveform, mean magnitude", source.name, name)
        if fact["start_index"] is not None:
            same = read_clip(source.preprocess / name, crop=fact["start_index"])
            within(limit, absolute(same, clip), "waveform, same start", source.name, name)


def test_crop(compact):
    """ "start", "center" and a number of samples, on a stereo file that needs no resampling."""
    path = compact.preprocess / "j_44k_stereo_4s.flac"
    left, right = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    whole = torch.cat([torch.from_numpy(left.copy()), torch.from_numpy(right.copy())])
    for crop, start in {"start": 0, "center": (len(whole) - CLIP) // 2, 1234: 1234}.items():
        assert torch.equal(read_clip(path, crop=crop), whole[start : start + CLIP]), crop


def test_last_start_is_never_drawn(tmp_path):
    """`randrange(n - 308700)`: of a clip one sample too long, all draws give the same start."""
    path = tmp_path / "plus1.wav"
    soundfile.write(path, torch.linspace(-0.9, 0.9, CLIP + 1).numpy(), 44_100, subtype="FLOAT")
    for seed in range(8):
        assert torch.equal(read_clip(path, rng=random.Random(seed)), read_clip(path, crop=0))


# Text.


def test_tokens(source, pengi):
    ids, mask = pengi.tokenize(source.facts["prompts"])
    assert ids.dtype == mask.dtype == torch.int64
    for row, prompt in enumerate(source.facts["prompts"]):
        assert torch.equal(ids[row], source.tables["text_eval"]["input_ids"][row]), prompt
        assert torch.equal(mask[row], source.tables["text_eval"]["attention_mask"][row]), prompt


def test_text_embeddings(source, pengi):
    table, got = source.tables["text_eval"], pengi.encode_text(source.facts["prompts"])
    within(TEXT, relative(got, table["embedding_norm"]), "text, unit", source.name)
    within(TEXT, relative(got, F.normalize(table["embedding_f64"])), "text, unit_f64", source.name)


@pytest.mark.parametrize("features", ["embedding", "unit"])
def test_zero_shot(source, pengi, stages, features):
    logits = ZeroShot(pengi, source.facts["class_names"])(stages[features])
    within(
        LOGIT,
        absolute(logits, source.tables["zeroshot"]["logits"]),
        "zero-shot logits",
        source.name,
    )


# The committed copy.


def test_compact_copy_is_what_make_fixture_makes(full):
    committed, made = read_table(FIXTURES / "compact.safetensors")[0], make_fixture.collect(full)
    assert committed.keys() == made.keys()
    assert [key for key in made if not torch.equal(committed[key], made[key])] == []


@pytest.mark.slow
def test_rebuilt_checkpoint_is_the_reference_s(compact, full):
    make_fixture.compare(full.state(), make_fixture.checkpoint(full), full.facts["config"])
    assert compact.state().keys() == {key for key in full.state() if "caption_decoder" not in key}
    for key in ("config", "prompts", "class_names", "full_keys"):
        assert compact.facts[key] == full.facts[key]
