"""The cross-modal probe: class texts are training samples of a linear probe."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from palmkit.methods.support import Support, SupportMethod, check_number, check_whole, parameter
from palmkit.training import check_finite


class CrossModalProbe(SupportMethod):
    """Logits s x W', where W [c, dim] starts at the texts T and is trained on clips and texts:

        loss of a step = (CE(s x_i W', y_i) + CE(s t_j W', j)) / 2, means over m clips and m texts

    Source: Lin et al. 2023 (arXiv 2301.06267): each batch is half clips, half texts; AdamW. The
    paper chooses rate, decay and the step to stop at on few-shot validation data. The defaults here
    are this kit's, set without any data: AdamW 1e-3, weight decay 0.01, 1000 steps of 16 clips and
    16 texts, cosine schedule, last step.
    train_lr, weight_decay, train_steps, train_batch: of the training; train_batch counts both
    halves.
    """

    name = "cross-modal-probe"
    label = "Cross-modal probe"
    color = "#393b79"

    def __init__(
        self,
        model,
        class_names,
        seed=0,
        train_lr=1e-3,
        weight_decay=0.01,
        train_steps=1000,
        train_batch=32,
        prompt=None,
        scale=None,
    ):
        super().__init__(model, class_names, seed, prompt, scale)
        check_number("train_lr", train_lr, above=True)
        check_number("weight_decay", weight_decay)
        check_whole("train_steps", train_steps, least=0)
        check_whole("train_batch", train_batch, least=2)
        self.train_lr, self.weight_decay = train_lr, weight_decay
        self.train_steps, self.train_batch = train_steps, train_batch
        self.W = parameter(*self.text.shape, like=self.text)
        self.keep(W=self.text)

    def fit_support(self, support: Support, seed=0, **settings) -> list[float]:
        self.keep(W=self.text)
        x, y = support.features.to(self.text), support.labels
        classes = torch.arange(support.classes, device=y.device)
        optimizer = torch.optim.AdamW([self.W], lr=self.train_lr, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(self.train_steps, 1))
        generator = torch.Generator().manual_seed(seed)
        half, losses = self.train_batch // 2, []
        clips = endless(len(x), half, generator)
        texts = endless(support.classes, half, generator)
        for _ in range(self.train_steps):
            i, j = next(clips).to(y.device), next(texts).to(y.device)
            of_clips = F.cross_entropy(self(x[i]), y[i])
            of_texts = F.cross_entropy(self(self.text[j]), classes[j])
            loss = (of_clips + of_texts) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        losses = torch.stack(losses).tolist() if losses else []
        check_finite(losses, self.train_lr)
        return losses

    def forward(self, audio_features):
        return self.logit_scale * self.audio(audio_features) @ self.W.T


def endless(n: int, size: int, generator: torch.Generator):
    """Yield `size` indices below n at a time, from one shuffled pass over n after the other."""
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(n, generator=generator)])
        yield waiting[:size]
        waiting = waiting[size:]
