"""Zero-shot and the three prompt learners, each as the paper writes it.

A method maps audio embeddings [b, dim] to logits [b, classes]; it knows no file, encoder call or device. To add one:
subclass `Method`, write `forward`, add a line to `METHODS`.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

LOGIT_SCALE = 100.0  # fixed in the published code; PENGI's own temperature is not used
ZERO_SHOT_PROMPT = "The is a recording of  {}."  # sic: the published zero-shot numbers belong to this wording
CONTEXT_LENGTH = 16
INITIAL_STD = 0.02
PALM_INITS = ("published", "text", "audio")


def unit(x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1)


class Method(nn.Module):
    """Base of all methods. `published` maps the published code's parameter names to ours."""

    published: dict[str, str] = {}

    def __init__(self, pengi, class_names):
        super().__init__()
        if isinstance(class_names, str):
            raise TypeError(f"class_names must be a list of names, not the string {class_names!r}")
        self.class_names = [str(name) for name in class_names]
        if len(self.class_names) < 2:
            raise ValueError(f"a classifier needs two classes or more, not {self.class_names}")
        if len(set(self.class_names)) < len(self.class_names) or not all(
            str(name).strip() for name in self.class_names
        ):
            raise ValueError(f"class names must be distinct and not empty: {self.class_names}")
        # Frozen encoders are used, not owned: they are no part of parameters() or state_dict().
        object.__setattr__(self, "pengi", pengi)

    def begin(self, features, labels):
        """Called by `fit` before the first step with the support set [n, dim], [n], for methods that start from it."""

    def prompt_learner_state(self) -> dict[str, torch.Tensor]:
        """What was learned, in the published code's names and shapes (on the CPU)."""
        own = dict(self.named_parameters())
        return {theirs: own[ours].detach().cpu().clone() for theirs, ours in self.published.items()}

    @torch.no_grad()
    def load_prompt_learner(self, state: dict) -> None:
        """Take what was learned from a published or own state; the buffers `sos`, `classes_pad` are accepted."""
        extra = {"sos", "classes_pad"} if "ctx" in self.published else set()
        missing, unknown = set(self.published) - set(state), set(state) - set(self.published) - extra
        if missing or unknown:
            raise ValueError(
                f"not a state of {type(self).__name__}: missing {sorted(missing)}, unknown {sorted(unknown)}"
            )
        own = dict(self.named_parameters())
        wrong = [
            f"{theirs} is {list(state[theirs].shape)}, expected {list(own[ours].shape)}"
            for theirs, ours in self.published.items()
            if state[theirs].shape != own[ours].shape
        ]
        wrong += [
            f"{name} is for {len(state[name])} classes, not {len(self.class_names)}"
            for name in extra & set(state)
            if len(state[name]) != len(self.class_names)
        ]
        if wrong:
            raise ValueError(f"a state of another {type(self).__name__}: " + "; ".join(wrong))
        for theirs, ours in self.published.items():
            own[ours].copy_(state[theirs])


class ZeroShot(Method):
    """Logits 100 cos(audio, text("The is a recording of  {class}.")); nothing is learned."""

    def __init__(self, pengi, class_names, prompt=ZERO_SHOT_PROMPT, seed=0):
        super().__init__(pengi, class_names)
        self.register_buffer("text", pengi.encode_text([prompt.format(name) for name in self.class_names]))  # [c, dim]

    def forward(self, audio_features):
        return LOGIT_SCALE * unit(audio_features) @ self.text.T


class PALM(Method):
    """f'_i = (1 - lambda_i) f_i + lambda_i z_i at the text encoder's output; f_i embeds the bare class name.

    Learned: z [c, dim] and lambda = sigmoid(l), l [c]. `context=False` removes z (the paper's ablation, PALM-dagger).

    Not in the paper, for ablations: init, where z starts ("published": noise; "text": f; "audio": the direction of the
    class's mean audio embedding in the support set that `fit` gets); fixed_lambda, a number that lambda stays at;
    shared_lambda, one for all classes. Noise and l are drawn alike in all of them, so that a seed means the same.
    """

    published = {"ctx": "z", "lambdas": "lambda_logits"}

    def __init__(
        self, pengi, class_names, context=True, seed=0, init="published", fixed_lambda=None, shared_lambda=False
    ):
        super().__init__(pengi, class_names)
        if init not in PALM_INITS or not 0 <= (fixed_lambda or 0) <= 1:
            raise ValueError(f"init={init!r} must be one of {PALM_INITS}, fixed_lambda={fixed_lambda} in 0..1")
        self.init, self.fixed_lambda = init, fixed_lambda
        latents = pengi.text_latents(self.class_names)
        f = pengi.project_text(latents)
        self.register_buffer("latents", latents)  # [c, clip_dim]; encoded once, never again
        self.register_buffer("f", f)  # [c, dim]
        if not context:
            self.published, self.z = {}, None
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.z = nn.Parameter((INITIAL_STD * torch.randn(f.shape)).to(f))
            lambda_logits = torch.rand(len(f)).to(f)
        if init == "text":
            self.z.data.copy_(f)
        if fixed_lambda is None:
            self.lambda_logits = nn.Parameter(lambda_logits[:1] if shared_lambda else lambda_logits)
        else:
            self.published = {"ctx": "z"}

    @torch.no_grad()
    def begin(self, features, labels):
        if self.z is None or self.init != "audio":
            return
        for label in labels.unique():  # a class without clips keeps its noise
            self.z[label] = unit(unit(features[labels == label]).mean(0))
        self.init = "begun"  # whoever goes on training goes on from what was learned

    @property
    def lambdas(self) -> torch.Tensor:
        """lambda of each class, [c], in [0, 1]."""
        if self.z is None or self.fixed_lambda is not None:
            return torch.full((len(self.f),), float(self.fixed_lambda or 0)).to(self.f)
        return torch.sigmoid(self.lambda_logits).expand(len(self.f))

    def forward(self, audio_features):
        # The published training has dropout in the text projection; what goes into that never changes.
        text = f = self.pengi.project_text(self.latents) if self.pengi.text.projection.training else self.f
        if self.z is not None:
            weight = self.lambdas[:, None]
            text = unit((1 - weight) * f + weight * self.z)
        return LOGIT_SCALE * unit(audio_features) @ text.T


class CoOp(Method):
    """Learned context vectors at the text encoder's input, shared by all classes: <sot> V_1 .. V_16 class . <eot>."""

    published = {"ctx": "context"}

    def __init__(self, pengi, class_names, context_length=CONTEXT_LENGTH, seed=0):
        super().__init__(pengi, class_names)
        ids, mask = pengi.tokenize([f"{'X ' * context_length}{name}." for name in self.class_names])
        ids = ids.to(pengi.device)
        embedding = pengi.text.token_embedding
        lengths = mask.sum(1) - 1 - context_length  # each class's own tokens, with <eot>
        self.register_buffer("start", embedding(ids[:1, :1]).clone())  # [1, 1, width]
        own = ids[:, 1 + context_length : 1 + context_length + int(lengths.max())]
        self.register_buffer("names", embedding(own).clone())  # [c, s, width]
        self.register_buffer("eot", (lengths - 1).to(pengi.device))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            context = INITIAL_STD * torch.randn(context_length, pengi.text.width)
            self.context = nn.Parameter(context.to(pengi.device))
            self.build(pengi)

    def build(self, pengi):
        """What a subclass adds; drawn from the same seeded generator, after the context."""

    def text(self, context):
        """Context vectors [b, 16, width] -> unit text embeddings [b, c, dim]. The prefix runs once for all classes."""
        start = self.start.expand(len(context), -1, -1)
        prefix = self.pengi.text.prefix(torch.cat([start, context], 1))
        return unit(self.pengi.text.follow(self.names.expand(len(context), -1, -1, -1), self.eot, prefix))

    def forward(self, audio_features):
        return LOGIT_SCALE * unit(audio_features) @ self.text(self.context[None])[0].T


class CoCoOp(CoOp):
    """CoOp whose context moves with the clip: V_m + metanet(audio), so each clip has its own text embeddings."""

    published = {"ctx": "context"} | {
        name: name for name in (f"meta_net.linear{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias"))
    }
    max_tokens = 8192  # tokens that go through the text encoder at once; bounds memory, changes nothing else

    def build(self, pengi):
        if pengi.dim < 16:
            raise ValueError(f"COCOOP's meta-net has a sixteenth of the features' width, which is {pengi.dim}: too few")
        self.meta_net = nn.Sequential()
        self.meta_net.add_module("linear1", nn.Linear(pengi.dim, pengi.dim // 16))
        self.meta_net.add_module("relu", nn.ReLU())
        self.meta_net.add_module("linear2", nn.Linear(pengi.dim // 16, pengi.text.width))
        self.meta_net.to(pengi.device)

    def clip_logits(self, audio, context):
        return LOGIT_SCALE * torch.einsum("bd,bcd->bc", audio, self.text(context))

    def forward(self, audio_features):
        audio = unit(audio_features)
        context = self.context + self.meta_net(audio)[:, None]  # [b, 16, width]
        tokens = self.names.shape[0] * self.names.shape[1] + 1 + len(self.context)
        chunks = list(zip(*(x.split(max(1, self.max_tokens // tokens)) for x in (audio, context)), strict=True))
        if len(chunks) == 1:
            return self.clip_logits(audio, context)
        # While training, a chunk's activations are computed anew in the backward pass, or memory would not be bounded.
        return torch.cat([checkpoint(self.clip_logits, *chunk, use_reentrant=False) for chunk in chunks])


METHODS = {
    "zeroshot": ZeroShot,
    "coop": CoOp,
    "cocoop": CoCoOp,
    "palm": PALM,
    "palm-dagger": functools.partial(PALM, context=False),
}
UNLEARNED = ("zeroshot", "palm-dagger")  # nothing to learn, so one seed tells all
