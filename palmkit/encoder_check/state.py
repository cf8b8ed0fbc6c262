"""Checks of what a model keeps and leaves alone: weights, digest, inputs, the process."""

from __future__ import annotations

import pickle

import joblib
import torch

from palmkit.encoder_check.embeddings import name_some
from palmkit.encoder_check.report import not_tested, ok, remark, tiny, wrong
from palmkit.encoder_check.subject import (
    SAME,
    TEXTS,
    Subject,
    attributes,
    distance,
    find_modules,
    find_tensors,
    hash_tensors,
    read_generators,
    read_settings,
    seed_all,
)

MOST_TENSORS = 48  # that are changed, one at a time: a digest of a large model takes a second
PROTOCOL_NUMBERS = ("sample_rate", "clip_seconds")
MOVED = 1e-6  # an embedding that a changed weight moves by more depends on it
# Attributes that change no embedding, or whose change is another check's.
NOT_PREPROCESSING = ("dim", "logit_scale", "text_width", "name", "prompt", "note", "training")


def calls_of(subject: Subject) -> dict:
    """{function: what calls it with usual inputs}."""
    model = subject.model
    found = {"encode_audio": lambda: model.encode_audio(subject.sounds[:2].clone())}
    if subject.has_text:
        found["encode_text"] = lambda: model.encode_text(list(TEXTS[:2]))
    if subject.has_tokens:
        found["tokenize"] = lambda: model.tokenize(list(TEXTS[:2]))
    return found | {"digest": model.digest}


def check_inputs(subject: Subject):
    """encode_audio and encode_text leave what they are given as it is."""
    waveforms = subject.sounds.clone()
    subject.model.encode_audio(waveforms)
    faults = []
    if not torch.equal(waveforms, subject.sounds):
        change = (waveforms - subject.sounds).abs().max()
        faults.append(f"encode_audio changes its waveforms, by {change:.2g}")
    if subject.has_text:
        prompts = list(TEXTS)
        subject.model.encode_text(prompts)
        if prompts != list(TEXTS):
            faults.append("encode_text changes its list of prompts")
    if faults:
        return wrong(
            f"{' and '.join(faults)}.",
            "A second use of the same waveforms gives another embedding.",
            "Work on a copy: no operation in place (x /= .., x.sub_(..)) on what was handed in.",
        )
    return ok("They are not changed.")


def check_process(subject: Subject):
    """Global random generators are not used or seeded, and global settings stay."""
    seed_all(12345)  # so that a model that seeds by 0 is seen
    faults = []
    for name, call in calls_of(subject).items():
        settings, generators = read_settings(), read_generators()
        call()
        after, states = read_settings(), read_generators()
        faults += [
            f"{name} changes {key} from {settings[key]} to {after[key]}"
            for key in settings
            if settings[key] != after[key]
        ]
        moved = [key for key in generators if generators[key] != states[key]]
        if moved:
            faults.append(f"{name} draws from or seeds the global generator of {', '.join(moved)}")
    if faults:
        return wrong(
            f"{'; '.join(faults)}.",
            "Other parts of a run then compute something else: draws and digits depend on whether "
            "embeddings came from the cache.",
            "Use generators of the model's own, and put settings back.",
        )
    return ok("Global random generators and settings are as before.")


def check_digest(subject: Subject):
    """A text, the same in each call, and for the model loaded once more."""
    found = [subject.model.digest() for _ in range(2)]
    if not isinstance(found[0], str) or not found[0]:
        return wrong(
            f"digest returned {found[0]!r:.60}.",
            "Cached embeddings and rows have no key.",
            "Return a text: a hash of weights, config and preprocessing.",
        )
    subject.model.encode_audio(subject.sounds[:2].clone())
    later = subject.model.digest()
    if len({*found, later}) > 1:
        return wrong(
            f"digest returned {len({*found, later})} texts in 3 calls for one model.",
            "No cached embedding and no row is ever found again.",
            "Hash weights, config and preprocessing only: no time, counter, id or path.",
        )
    if subject.load is None:
        return ok("The same in each call. (Not loaded twice: give a name for that.)")
    again = subject.load().digest()
    if again != later:
        return wrong(
            f"Loaded a second time its digest is {again!r:.20}, not {later!r:.20}.",
            "Every run computes all embeddings again, and rows are never found.",
            "Are weights drawn at random at loading, or paths, times and addresses hashed?",
        )
    return ok("The same in each call, and for the model loaded a second time.")


# What the digest covers


def choose_tensors(model) -> dict[str, torch.Tensor]:
    """Floating tensors to be changed: of each part of the model, the first and last parameter and
    the first and last buffer."""
    groups: dict[tuple, list[str]] = {}
    tensors = {
        name: one
        for name, one in find_tensors(model, derived=False).items()
        if one.is_floating_point() and one.numel()
    }
    for name, tensor in tensors.items():
        part = tuple(name.split(".")[:2]) if name.count(".") > 1 else (name.split(".")[0],)
        groups.setdefault((part, isinstance(tensor, torch.nn.Parameter)), []).append(name)
    chosen = [name for names in groups.values() for name in dict.fromkeys((names[0], names[-1]))]
    return {name: tensors[name] for name in chosen[:MOST_TENSORS]}


def check_digest_covers(subject: Subject):
    """The digest changes with weights and preprocessing that change an embedding."""
    model, missed = subject.model, []
    before = read_digests(model)
    tensors = choose_tensors(model)
    for name, tensor in tensors.items():
        missed += [f"{name} ({digest})" for digest in find_missed(subject, tensor, before)]
    numbers = list_numbers(model)
    unseen = [name for name in numbers if misses_number(subject, name, before)]
    missed += [f"{name} (digest)" for name in unseen if name in PROTOCOL_NUMBERS]
    if missed:
        return wrong(
            f"A change moves embeddings and leaves the digest as it is: {name_some(missed)}.",
            "Embeddings in the cache, and rows, of other weights or settings are taken for this "
            "model's.",
            "Hash all tensors that are used (state_dict() has the buffers too) and all settings.",
        )
    if not tensors:
        return not_tested("The model's attributes lead to no tensor, so none was changed.")
    if unseen:
        return remark(
            f"It changes with weights. Another {name_some(unseen)} moves embeddings, and does not "
            "change the digest.",
            "That is right only where this follows from something else that is hashed.",
            "Else hash it too.",
        )
    return ok(
        f"It changes with each of {len(tensors)} tensors of all parts that moves an embedding, "
        f"and with settings ({name_some(numbers)})."
    )


def read_digests(model) -> dict[str, str]:
    names = ("digest", "audio_digest")
    return {name: getattr(model, name)() for name in names if hasattr(model, name)}


def find_missed(subject: Subject, tensor, before: dict[str, str]) -> list[str]:
    """The digests that do not change though an embedding does, for a change of this tensor."""
    kept = tensor.detach().clone()
    is_inference = tensor.is_inference()
    place = (0,) * tensor.ndim
    try:
        with torch.inference_mode(is_inference), torch.no_grad():
            tensor[place] = tensor[place] + 1 + tensor[place].abs()
        after = read_digests(subject.model)
        same = [name for name in before if after[name] == before[name]]
        if not same:
            return []
        # One value of a large table may move no embedding of these sounds and texts; all do.
        slope = torch.linspace(0.05, 0.15, kept.numel(), dtype=torch.float64)
        with torch.inference_mode(is_inference), torch.no_grad():
            tensor.copy_(1.5 * kept + slope.reshape(kept.shape).to(kept))
        moved = find_moved(subject)
    finally:
        with torch.inference_mode(is_inference), torch.no_grad():
            tensor.copy_(kept)
    return [one for one in same if "audio" in moved or ("text" in moved and one == "digest")]


def find_moved(subject: Subject) -> list[str]:
    """ "audio" and "text", for the embeddings that are not as they were, of two of each."""
    found = []
    if not distance(subject.embed_audio(subject.sounds[2:4]), subject.audio[2:4]) <= MOVED:
        found.append("audio")
    if subject.has_text and not distance(subject.embed_text(TEXTS[:2]), subject.texts[:2]) <= MOVED:
        found.append("text")
    return found


def list_numbers(model) -> list[str]:
    """Numbers and switches among the attributes: settings of the preprocessing, mostly."""
    own = [key for key, one in attributes(model).items() if isinstance(one, bool | int | float)]
    names = dict.fromkeys([*PROTOCOL_NUMBERS, *own])
    return [name for name in names if name[0] != "_" and name not in NOT_PREPROCESSING]


def misses_number(subject: Subject, name: str, before: dict[str, str]) -> bool:
    """Whether another value of a setting moves embeddings and leaves the digest as it is."""
    model, is_own = subject.model, name in attributes(subject.model)
    value = getattr(model, name)
    # Computed before the change, which they depend on.
    known = (subject.sounds, subject.audio, subject.has_text and subject.texts)
    try:
        setattr(model, name, not value if isinstance(value, bool) else value * 2)
        return bool(known) and model.digest() == before["digest"] and bool(find_moved(subject))
    except Exception:  # another value that the model cannot run with is nothing to be held against
        return False
    finally:
        if is_own:
            setattr(model, name, value)
        elif name in attributes(model):
            delattr(model, name)


# After all other checks


def check_frozen(subject: Subject, before: str):
    """Weights are as they were before all checks, and none takes part in training.

    before: `hash_tensors` at the start.
    """
    tensors = find_tensors(subject.model)
    learning = [name for name, one in tensors.items() if one.requires_grad]
    graded = [name for name, one in tensors.items() if one.is_leaf and one.grad is not None]
    if hash_tensors(subject.model) != before:
        return wrong(
            "The weights are not as they were before embedding and training.",
            "The digest of a trained model is another one, and results depend on what ran before.",
            "Call eval() on all networks (batch norms count in train mode), and keep no running "
            "numbers.",
        )
    if learning:
        graded_text = f" {len(graded)} got a gradient in training." if graded else ""
        return wrong(
            f"{len(learning)} of {len(tensors)} tensors require a gradient: "
            f"{name_some(learning)}.{graded_text}",
            "Each step of COOP computes gradients of the whole encoder: several times the memory "
            "and time.",
            "Call requires_grad_(False) on all networks at loading.",
        )
    modules = [
        f"{start}.{name}" if name else start
        for start, module in find_modules(subject.model).items()
        for name, one in module.named_modules()
        if one.training and not list(one.children())
    ]
    if modules:
        return remark(
            f"{len(modules)} modules are in train mode: {name_some(modules)}.",
            "No embedding showed it; dropout and batch norms would.",
            "Call eval() on all networks at loading.",
        )
    if not tensors:
        return not_tested("The model's attributes lead to no tensor.")
    return ok(f"{len(tensors)} tensors are as before, need no gradient and have none.")


def check_pickling(subject: Subject):
    """A copy through pickle, as worker processes get it, gives the same embeddings."""
    try:
        wrapped = joblib.wrap_non_picklable_objects(subject.model, keep_wrapper=False)
        data = pickle.dumps(wrapped)
        copy = Subject(pickle.loads(data))
        moved = distance(copy.embed_audio(subject.sounds), subject.audio)
        if subject.has_text:
            moved = max(moved, distance(copy.embed_text(TEXTS), subject.texts))
    except Exception as error:  # whatever an object raises that cannot be pickled
        return wrong(
            f"The model cannot be copied through pickle: {type(error).__name__}: {error!s:.200}.",
            "Runs with several processes (PALMKIT_JOBS) stop.",
            "Keep no open files, locks or sessions in attributes, or write __getstate__.",
        )
    if moved > max(SAME, subject.same):
        return wrong(
            f"A copy through pickle gives embeddings that differ by {moved:.2g}.",
            "Results depend on the number of processes.",
            "Keep all that counts in attributes; write __getstate__ and __setstate__ together.",
        )
    return ok(f"The copy's embeddings differ by {tiny(moved)}; it has {len(data) / 1e6:.3g} MB.")
