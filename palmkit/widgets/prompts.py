"""Prompt bench: other prompts and class names, and their effect."""

from __future__ import annotations

import ipywidgets as w

from palmkit.widgets import session
from palmkit.widgets.base import Panel, row
from palmkit.widgets.html import confusion_table, escape, filled, number, table


class PromptBench(Panel):
    title = "Prompt bench"
    hint = "Type another template or other class names. Only the text is encoded again."

    def build(self):
        self.template = self.control(w.Text(), "Template", "420px", do=self.show)
        self.reset = self.control(w.Button(icon="undo"), "As published", do=self.set_back)
        self.clip = self.choice("Logits of clip", self.show)
        self.names = w.GridBox(layout=w.Layout(grid_template_columns="repeat(auto-fill, 290px)"))
        self.score = w.HTML()
        self.lines = w.HTML()
        self.counts = w.HTML()
        below = row(self.lines, self.counts, align="flex-start")
        return [row(self.template, self.reset, self.score), self.names, row(self.clip), below]

    def fill(self):
        self.template.value = self.task.model.prompt
        boxes = self.names.children
        self.controls = {label: c for label, c in self.controls.items() if c not in boxes}
        self.names.children = [
            self.control(w.Text(name), f"{name}:", "280px", do=self.show)
            for name in self.task.class_names
        ]
        self.choose(self.clip, [(name, n) for n, name in enumerate(self.task.clip_names)])

    def set_back(self):
        with self.quiet():
            self.template.value = self.task.model.prompt
            for box, name in zip(self.names.children, self.task.class_names, strict=True):
                box.value = name
        self.show()

    def show(self):
        # No earlier result stays beside an error.
        self.score.value = self.counts.value = self.lines.value = ""
        names = [box.value for box in self.names.children]
        prompts = session.fill_template(self.template.value, names)
        limit = session.token_limit(self.task.model)
        tokens = session.count_tokens(prompts) if limit else None
        if limit and max(tokens) > limit:
            self.lines.value = self.table(prompts, tokens)
            self.task.model.tokenize(prompts)  # raises an error that names the prompt
        logits = session.prompt_logits(self.task, prompts)
        counts = session.confusion(logits, self.task.test.labels)
        self.lines.value = self.table(prompts, tokens, logits[self.clip.value].tolist(), counts)
        self.counts.value = confusion_table(counts, self.task.class_names)
        accuracy = self.task.accuracy(logits)
        score = f"accuracy <b>{accuracy:.3f}</b> on {len(logits)} test clips"
        self.score.value = f"<span class=big>{score}</span>"

    def table(self, prompts, tokens=None, logits=None, counts=None) -> str:
        """A line for each prompt. Without tokens, or without logits, their columns are left out."""
        true = int(self.task.test.labels[self.clip.value])
        lines = []
        for n, prompt in enumerate(prompts):
            line = [(escape(prompt) + " ✓" * (n == true), "prompt")]
            if tokens:
                line.append(self.token_cell(tokens[n]))
            if logits:
                text = f"{logits[n]:.1f}"
                recall = counts[n, n] / max(counts[n].sum(), 1)
                best = logits[n] == max(logits)
                line += [(f"<b>{text}</b>" if best else text, "number"), number(recall)]
            lines.append(line)
        head = ["prompt (✓: the clip's class)", *["tokens"] * bool(tokens)]
        return table([*head, "clip's logit", "recall"], lines)

    def token_cell(self, tokens: int) -> tuple[str, str]:
        limit = session.token_limit(self.task.model)
        text = f"{tokens} of {limit}{' ⚠' * (tokens > limit)}"
        bar = filled(text, tokens / limit, "222,143,5")
        return bar, "error" if tokens > limit else "fits"
