"""Prompt bench: other words, and what they do."""

from __future__ import annotations

import ipywidgets as w

from palmkit.methods.zero_shot import ZERO_SHOT_PROMPT
from palmkit.widgets import session as explore
from palmkit.widgets.base import Explorer, row
from palmkit.widgets.html import confusion_table, escape, filled, number, table


class PromptBench(Explorer):
    title = "Prompt bench"
    hint = "Type another template or other class names: text is encoded anew at each key, audio is not."

    def build(self):
        self.template = self.control(w.Text(ZERO_SHOT_PROMPT), "Template", "420px", do=self.show)
        self.reset = self.control(w.Button(icon="undo"), "As published", do=self.set_back)
        self.clip = self.choice("Logits of clip", self.show)
        self.names = w.GridBox(layout=w.Layout(grid_template_columns="repeat(auto-fill, 290px)"))
        self.score, self.lines, self.counts = w.HTML(), w.HTML(), w.HTML()
        below = row(self.lines, self.counts, align="flex-start")
        return [row(self.template, self.reset, self.score), self.names, row(self.clip), below]

    def fill(self):
        self.controls = {
            label: it for label, it in self.controls.items() if it not in self.names.children
        }
        names = self.task.class_names
        self.names.children = [
            self.control(w.Text(name), f"{name}:", "280px", do=self.show) for name in names
        ]
        self.choose(self.clip, [(name, n) for n, name in enumerate(self.task.clip_names)])

    def set_back(self):
        with self.quiet():
            self.template.value = ZERO_SHOT_PROMPT
            for box, name in zip(self.names.children, self.task.class_names, strict=True):
                box.value = name
        self.show()

    def show(self):
        self.score.value = self.counts.value = self.lines.value = (
            ""  # nothing stale beside an error
        )
        prompts = explore.prompts_of(
            self.template.value, [box.value for box in self.names.children]
        )
        tokens, most = explore.count_tokens(prompts), self.task.model.text.max_tokens
        if max(tokens) > most:
            self.lines.value = self.table(prompts, tokens, most)
            self.task.model.tokenize(prompts)  # raises, naming the prompt
        logits = explore.prompt_logits(self.task, prompts)
        counts = explore.confusion(logits, self.task.test.labels)
        self.lines.value = self.table(
            prompts, tokens, most, logits[self.clip.value].tolist(), counts
        )
        self.counts.value = confusion_table(counts, self.task.class_names)
        accuracy = self.task.accuracy(logits)
        self.score.value = (
            f"<span class=big>accuracy <b>{accuracy:.3f}</b> on {len(logits)} test clips</span>"
        )

    def table(self, prompts, tokens, most, logits=None, counts=None) -> str:
        true, lines = int(self.task.test.labels[self.clip.value]), []
        for n, (prompt, many) in enumerate(zip(prompts, tokens, strict=True)):
            told = filled(f"{many} of {most}{' ⚠' * (many > most)}", many / most, "222,143,5")
            line = [
                (escape(prompt) + " ✓" * (n == true), "prompt"),
                (told, "error" if many > most else "fits"),
            ]
            if logits is not None:
                best, recall = logits[n] == max(logits), counts[n, n] / max(counts[n].sum(), 1)
                line += [
                    (f"<b>{logits[n]:.1f}</b>" if best else f"{logits[n]:.1f}", "number"),
                    number(recall),
                ]
            lines.append(line)
        return table(["prompt (✓: the clip's class)", "tokens", "clip's logit", "recall"], lines)
