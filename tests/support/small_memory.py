"""A model whose memory is small: it raises as PyTorch does where too much is computed at once."""

from __future__ import annotations

import torch

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.00 GiB")
CPU = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to")


class FailsBackward(torch.autograd.Function):
    """The identity. Its backward pass has no memory."""

    @staticmethod
    def forward(context, x, error):
        context.error = error
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        raise context.error


class SmallMemory:
    """A model beside which only so much fits; the rest is the model's.

    prompts, clips, rows: most of encode_embeddings (clips * classes), of encode_audio, and of
    logits that a method makes at once (see `logits`). backward: the error comes with the gradient.
    """

    def __init__(self, model, prompts=10**9, clips=10**9, error=GPU, backward=False):
        self.inner = model
        self.prompts, self.clips, self.error, self.backward = prompts, clips, error, backward
        self.failed = 0
        self.sizes: list[int] = []  # of what did fit
        self.projected: list[int] = []  # prompts of each call of project_prompts

    def __getattr__(self, name: str):
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def encode_embeddings(self, prefix, suffix, lengths):
        found = self.inner.encode_embeddings(prefix, suffix, lengths)
        return self.check(found, len(prefix) * len(suffix), self.prompts)

    def prompt_latents(self, prefix, suffix, lengths):
        found = self.inner.prompt_latents(prefix, suffix, lengths)
        return self.check(found, len(prefix) * len(suffix), self.prompts)

    def project_prompts(self, latents):
        self.projected.append(latents.shape[0] * latents.shape[1])
        return self.inner.project_prompts(latents)

    def encode_audio(self, waveforms):
        return self.check(self.inner.encode_audio(waveforms), len(waveforms), self.clips)

    def check(self, tensor, size: int, most: int):
        """The tensor, if it is one of those that fit."""
        if size <= most:
            self.sizes.append(size)
            return tensor
        self.failed += 1
        if self.backward and tensor.requires_grad:
            return FailsBackward.apply(tensor, self.error)
        raise self.error
