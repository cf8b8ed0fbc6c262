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
        columns = w.Layout(grid_template_columns="repeat(auto-fill, 290px)")
        self.names = w.GridBox(layout=columns)
        self.score = w.HTML()
        self.lines = w.HTML()
        self.counts = w.HTML()
        return [
            row(self.template, self.reset, self.score),
            self.names,
            row(self.clip),
            row(self.lines, self.counts, align="flex-start"),
        ]

    def fill(self):
        self.template.value = self.task.model.prompt
        for label, control in list(self.controls.items()):
            if control in self.names.children:
                del self.controls[label]
        self.names.children = [
            self.control(w.Text(name), f"{name}:", "280px", do=self.show)
            for name in self.task.class_names
        ]
        clips = [(name, n) for n, name in enumerate(self.task.clip_names)]
        self.choose(self.clip, clips)

    def set_back(self):
        with self.quiet():
            self.template.value = self.task.model.prompt
            for box, name in zip(self.names.children, self.task.class_names, strict=True):
                box.value = name
        self.show()

    def show(self):
        # No earlier result stays beside an error.
        for shown in (self.score, self.counts, self.lines):
            shown.value = ""
        names = [box.value for box in self.names.children]
        prompts = session.fill_template(self.template.value, names)
        limit = session.token_limit(self.task.model)
        tokens = session.count_tokens(prompts) if limit else None
        if limit and max(tokens) > limit:
            self.lines.value = self.table(prompts, tokens)
            self.task.model.tokenize(prompts)  # raises an error that names the prompt
        logits = session.prompt_logits(self.task, prompts)
        counts = session.confusion(logits, self.task.test.labels)
        of_clip = logits[self.clip.value].tolist()
        self.lines.value = self.table(prompts, tokens, of_clip, counts)
        self.counts.value = confusion_table(counts, self.task.class_names)
        accuracy = self.task.accuracy(logits)
        score = f"accuracy <b>{accuracy:.3f}</b> on {len(logits)} test clips"
        self.score.value = f"<span class=big>{score}</span>"

    def table(self, prompts, tokens=None, logits=None, counts=None) -> str:
        """A line for each prompt. Without tokens, or without logits, their columns are left out."""
        true = int(self.task.test.labels[self.clip.value])
        lines = []
        for n, prompt in enumerate(prompts):
            mark = " ✓" if n == true else ""
            line = [(escape(prompt) + mark, "prompt")]
            if tokens:
                line.append(self.token_cell(tokens[n]))
            if logits:
                recall = counts[n, n] / max(counts[n].sum(), 1)
                line.append(self.logit_cell(logits[n], logits[n] == max(logits)))
                line.append(number(recall))
            lines.append(line)
        head = ["prompt (✓: the clip's class)"]
        if tokens:
            head.append("tokens")
        return table([*head, "clip's logit", "recall"], lines)

    def logit_cell(self, logit: float, best: bool) -> tuple[str, str]:
        text = f"{logit:.1f}"
        return (f"<b>{text}</b>" if best else text), "number"

    def token_cell(self, tokens: int) -> tuple[str, str]:
        limit = session.token_limit(self.task.model)
        text = f"{tokens} of {limit}"
        if tokens > limit:
            return filled(f"{text} ⚠", tokens / limit, "222,143,5"), "error"
        return filled(text, tokens / limit, "222,143,5"), "fits"
