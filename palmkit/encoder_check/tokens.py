"""Checks of token-level text (PromptableText), which COOP and COCOOP learn in front of."""

from __future__ import annotations

import torch

from palmkit.encoder_check.embeddings import name_some
from palmkit.encoder_check.report import not_tested, ok, remark, tiny, wrong
from palmkit.encoder_check.subject import TEXTS, Subject, as_unit, distance
from palmkit.models.base import count_special_tokens

# Of COOP's text and encode_text: two ways through one network, with other padding.
EQUAL = 1e-4
# Relative error of a directional derivative by differences. In float32 the difference has 3 digits
# at the best step; a gradient that lacks a path is wrong by tens of percent.
FINITE = {torch.float32: 0.02, torch.float64: 1e-4}
STEPS = (0.1, 0.03, 0.01, 0.003, 0.001)  # of the tokens' size; the best of them counts
SPLITS = (1, 2, 3)  # tokens in the prefix
PROMPT = "a sound of {}."


def check_token_ids(subject: Subject):
    model = subject.model
    prompts = list(TEXTS)  # which differ in their first and last words
    ids, mask = model.tokenize(list(prompts))
    shapes = f"{list(ids.shape)} and {list(mask.shape)}"
    if ids.ndim != 2 or ids.shape != mask.shape or len(ids) != len(prompts):
        faults = [f"shapes {shapes} for {len(prompts)} prompts"]
    else:
        faults = find_token_faults(model, ids, mask, prompts)
    if faults:
        return wrong(
            f"tokenize and embed_tokens: {'; '.join(faults)}.",
            "COOP cuts prompts into <start>, context, name and <end> by these, and would cut in "
            "the wrong places.",
            "Return int64 ids and mask [n, tokens]: <start>, the words, <end>, padding; or say by "
            "special_tokens how many there are in front and behind, (1, 1) if it is not there.",
        )
    placeholders, alone = model.tokenize(["X X X X"]), model.tokenize(["X"])
    count = int(placeholders[1].sum()) - int(alone[1].sum())
    if count != 3:
        return remark(
            f"The word X has {count / 3:.2g} tokens.",
            "COOP puts its context in the place of X X .. X and refuses such a tokenizer.",
            "Tokenize words apart, so that X is one token.",
        )
    longest = int(mask.sum(1).max())
    front, behind = count_special_tokens(model)
    return ok(
        f"Special tokens: {front} in front, {behind} behind; up to {longest} tokens here; X is one "
        "token."
    )


def find_token_faults(model, ids, mask, prompts: list[str]) -> list[str]:
    """What is not as PromptableText says, for ids and mask [n, tokens]."""
    faults, lengths = [], mask.sum(1)
    front, behind = count_special_tokens(model)
    if ids.dtype != torch.int64 or mask.dtype != torch.int64:
        faults.append(f"types {ids.dtype} and {mask.dtype} in place of int64")
    if not ((mask == 0) | (mask == 1)).all() or (mask[:, 1:] > mask[:, :-1]).any():
        faults.append("the mask is not 1 for tokens and then 0 for padding at the right")
    if (ids[:, :front] != ids[0, :front]).any():
        first = ids[:4, :front].tolist()
        faults.append(f"the first tokens differ ({first}), so special_tokens[0] is not {front}")
    places = lengths[:, None] - torch.arange(1, behind + 1)
    ends = ids.gather(1, places.clamp(min=0))
    if (ends != ends[:1]).any():
        faults.append(
            f"the last tokens differ ({ends[:4].tolist()}), so special_tokens[1] is not {behind}"
        )
    alone, alone_mask = model.tokenize([prompts[0]])
    n = int(lengths[0])
    if int(alone_mask.sum()) != n or (alone[0, :n] != ids[0, :n]).any():
        faults.append("a prompt alone has other tokens than among others")
    tokens = model.embed_tokens(ids)
    wanted = [*ids.shape, model.text_width]
    if list(tokens.shape) != wanted or not tokens.is_floating_point():
        faults.append(f"embed_tokens returned {tokens.dtype} {list(tokens.shape)}, not {wanted}")
    return faults


def cut(model, prompt: str) -> torch.Tensor:
    """The token embeddings of a prompt without padding, [tokens, width]."""
    ids, mask = model.tokenize([prompt])
    return model.embed_tokens(ids[:, : int(mask.sum())])[0].detach().clone()


def suffixes(model, prompts: list[str], start: int = 1):
    """(suffix [c, s, width], lengths [c]): the tokens from `start` on, padded as the model pads."""
    ids, mask = model.tokenize(list(prompts))
    lengths = mask.sum(1) - start
    longest = start + int(lengths.max())
    tokens = model.embed_tokens(ids[:, start:longest]).detach().clone()
    return tokens, lengths.to(tokens.device)


def encode(model, prefix, suffix, lengths) -> torch.Tensor:
    """encode_embeddings as it is, of copies."""
    return model.encode_embeddings(prefix.clone(), suffix.clone(), lengths.clone())


def check_token_text(subject: Subject):
    """Tokens of a prompt, split in several ways, give the embedding of encode_text."""
    model = subject.model
    prompts = [PROMPT.format(text) for text in TEXTS[:4]]
    # Each alone: whether padding counts is another check.
    whole = torch.cat([subject.embed_text([prompt]) for prompt in prompts])
    parts, found = [cut(model, prompt)[None] for prompt in prompts], {}
    for size in SPLITS:
        texts = []
        for x in parts:
            lengths = torch.tensor([x.shape[1] - size], device=x.device)
            text = encode(model, x[:, :size], x[:, size:], lengths)
            if list(text.shape) != (shape := [1, 1, model.dim]):
                return wrong(
                    f"encode_embeddings returned the shape {list(text.shape)}, not {shape}.",
                    "COOP and COCOOP cannot compute logits.",
                    "Return [prefixes, classes, dim].",
                )
            texts.append(as_unit(text[0]))
        found[f"a prefix of {size}"] = distance(torch.cat(texts), whole)
    worst = max(found, key=found.get)
    if found[worst] > EQUAL:
        bad = [f"{how}: {value:.2g}" for how, value in found.items() if value > EQUAL]
        return wrong(
            f"encode_embeddings of a prompt's own tokens is not encode_text of it: distance "
            f"{'; '.join(bad)} ({EQUAL:g} is allowed).",
            "COOP learns in front of another text encoder than zero-shot and PALM use.",
            "Compare positions, the place of <end> (lengths - 1 of the suffix), masks, and what "
            "encode_text does to the prompt.",
        )
    return ok(f"The same as encode_text to {tiny(found[worst])}, for {', '.join(found)}.")


def check_token_padding(subject: Subject):
    """What stands behind `lengths` does not matter, and short names do not change beside long."""
    model = subject.model
    prompts = [PROMPT.format(text) for text in TEXTS[:4]]
    tokens, lengths = suffixes(model, prompts)
    start = cut(model, prompts[0])[None, :1]
    plain = as_unit(encode(model, start, tokens, lengths)[0])
    behind = torch.arange(tokens.shape[1], device=tokens.device) >= lengths[:, None]
    if not behind.any():
        return not_tested("All prompts have as many tokens, so there is no padding.")
    noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0)).to(tokens)
    filled = torch.where(behind[..., None], 3 * tokens.std() * noise, tokens)
    found = {"other values in the padding": as_unit(encode(model, start, filled, lengths)[0])}
    longer = torch.cat([tokens, tokens[:, :2]], 1)
    found["two more tokens of padding"] = as_unit(encode(model, start, longer, lengths)[0])
    alone = [
        encode(model, start, tokens[n : n + 1, : int(lengths[n])], lengths[n : n + 1])[0]
        for n in range(len(prompts))
    ]
    found["a name alone"] = as_unit(torch.cat(alone))
    return judge_tokens(
        {how: distance(one, plain) for how, one in found.items()},
        subject.same,
        "Padding counts",
        "A class's text depends on the longest class name of the task.",
        "Mask what lies behind `lengths`, and read the output at <end>, place lengths - 1.",
    )


def check_token_batches(subject: Subject):
    """Several prefixes are as one at a time, and the order of classes does not matter."""
    model = subject.model
    tokens, lengths = suffixes(model, [PROMPT.format(text) for text in TEXTS[:5]])
    start = cut(model, PROMPT.format(TEXTS[0]))[None, :1]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 2, tokens.shape[-1], generator=generator).to(tokens) * tokens.std()
    prefix = torch.cat([start.expand(3, -1, -1), noise], 1)
    whole = as_unit(encode(model, prefix, tokens, lengths))
    one = torch.cat([as_unit(encode(model, x[None], tokens, lengths)) for x in prefix])
    order = [3, 0, 4, 2, 1]
    turned = as_unit(encode(model, prefix, tokens[order], lengths[order]))
    found = {"one prefix at a time": distance(one.flatten(0, 1), whole.flatten(0, 1))}
    found["another order of classes"] = distance(
        turned.flatten(0, 1), whole[:, order].flatten(0, 1)
    )
    return judge_tokens(
        found,
        subject.same,
        "Prefixes or classes are mixed up",
        "COCOOP's logits of a clip use the context of another clip, or the text of another class.",
        "encode_embeddings(prefix [b, ..], suffix [c, ..]) returns [b, c, dim]: row b, column c.",
    )


def judge_tokens(found: dict[str, float], allowed: float, title: str, effect: str, advice: str):
    worst = max(found, key=found.get)
    if found[worst] <= allowed:
        return ok(f"The same to {tiny(found[worst])} for {', '.join(found)}.")
    bad = [f"{how} differs by {value:.2g}" for how, value in found.items() if value > allowed]
    return wrong(f"{title}: {', '.join(bad)} ({allowed:g} is allowed).", effect, advice)


def check_token_gradients(subject: Subject):
    """Gradients in prefix and suffix, beside differences."""
    model = subject.model
    tokens, lengths = suffixes(model, [PROMPT.format(text) for text in TEXTS[:3]], start=3)
    prefix = cut(model, PROMPT.format(TEXTS[0]))[None, :3]
    inputs = {"prefix": prefix, "suffix": tokens}
    weights = torch.randn(3, model.dim, generator=torch.Generator().manual_seed(0)).double()

    def value(x: dict) -> torch.Tensor:
        text = model.encode_embeddings(x["prefix"], x["suffix"], lengths.clone())[0]
        unit = torch.nn.functional.normalize(text.double(), dim=-1)
        return (unit * weights.to(unit.device)).sum()

    with torch.enable_grad():
        leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        total = value(leaves)
        gradients = [None, None]
        if total.requires_grad:
            gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    missing = [
        name for name, one in zip(inputs, gradients, strict=True) if one is None or not one.any()
    ]
    if missing:
        return wrong(
            f"encode_embeddings gives no gradient for {' and '.join(missing)}.",
            "COOP and COCOOP cannot learn: training stops, or the context never moves.",
            "Compute without no_grad, inference_mode, detach() and .data.",
        )
    errors = {
        name: compare_gradient(value, inputs, name, gradient)
        for name, gradient in zip(inputs, gradients, strict=True)
    }
    allowed = FINITE.get(tokens.dtype, FINITE[torch.float32])
    if bad := {name: error for name, error in errors.items() if not error <= allowed}:
        text = " and ".join(f"{100 * error:.2g} % in the {name}" for name, error in bad.items())
        return wrong(
            f"The gradient of encode_embeddings differs from differences by {text} "
            f"({100 * allowed:g} % is allowed).",
            "COOP and COCOOP move their context in a wrong direction, or by wrong steps.",
            "Is a part detached, computed in no_grad, rounded, or scaled in a hook?",
        )
    text = name_some([f"{tiny(error)} in the {name}" for name, error in errors.items()])
    return ok(f"Gradients are those of differences, to a relative error of {text}.")


def compare_gradient(value, inputs: dict, name: str, gradient: torch.Tensor) -> float:
    """Error of directional derivatives along the gradient and along a random direction, over the
    gradient's norm; of the best step."""
    x, norm = inputs[name], gradient.double().norm()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(gradient)
    # Half of the random direction is the gradient's, so that its derivative is not near 0.
    directions = [gradient / gradient.norm(), noise / noise.norm() + gradient / gradient.norm()]
    worst = 0.0
    for direction in directions:
        direction = direction / direction.norm()
        expected = (gradient.double() * direction.double()).sum()
        errors = []
        for step in STEPS:
            size = (step * x.norm()).item() / x.shape[-2] ** 0.5
            with torch.no_grad():
                sides = [value(inputs | {name: x + sign * size * direction}) for sign in (1, -1)]
            errors.append(abs((sides[0] - sides[1]) / (2 * size) - expected) / norm)
        worst = max(worst, min(error.item() for error in errors))
    return worst
