"""What the notebooks' figures show, in a sentence each."""

from __future__ import annotations

import re

PUBLISHED = "Published numbers, not this run's."
# By the name that a figure is saved under; {} stands for a dataset.
CAPTIONS = {
    "clip": "Waveform and log-mel spectrogram of one test clip.",
    "image": "The spectrogram as the image that the audio encoder takes.",
    "cosines": "Mean cosine of the clips of each class with the name of each class.",
    "prompt_wording": "Zero-shot accuracy with several wordings of the prompt.",
    "losses_coop": "Training loss of COOP by epoch.",
    "losses_cocoop": "Training loss of COCOOP by epoch.",
    "losses_palm": "Training loss of PALM by epoch.",
    "results": "Accuracy of each method on each dataset.",
    "lambda_angles": "Angle between the class name and the mix, before and after training.",
    "lambdas": "PALM's lambdas before and after training, all classes together.",
    "lambdas_{}": "PALM's lambda of each class of {}, before and after training.",
    "published_leads": "PALM minus COOP and minus COCOOP on the paper's datasets, and what seeds "
    f"explain. {PUBLISHED}",
    "critical_difference": f"Mean ranks of the methods over the paper's datasets. {PUBLISHED}",
    "published_dagger": f"Zero-shot, PALM† and PALM on the paper's datasets. {PUBLISHED}",
    "protocols": "Accuracy with the released protocol minus that with frozen encoders; on ESC-10 "
    "measured once with mini-PENGI, not in this run.",
    "protocol_parts": "Accuracy with one source of randomness minus that with frozen encoders; on "
    "ESC-10 measured once with mini-PENGI, not in this run.",
    "ablation_variants": "Accuracy of PALM with one thing changed, minus that of published PALM.",
    "ablation_sweep": "Gain over zero-shot by clips a class, for each method, start and rate; from "
    "the file that the notebook names, not of this run.",
    "ablation_sizes": "Accuracy by number of classes, width of the features, epochs and context "
    "vectors.",
    "lambda_datasets": "Learned lambdas of each dataset.",
    "lambda_shots": "Lambdas, length of the learned context and angle to the class name, by shots.",
    "lambda_near_zero": "Angle between f and f', and accuracy with lambda set to 0, by lambda.",
    "lambda_relations": "Lambda of each class against its recall and against what else may explain "
    "it.",
    "class_differences": "Recall of each class by PALM minus that by zero-shot.",
    "calibration": "Accuracy by confidence, and by how unsure zero-shot is of a clip.",
    "mixtures": "Guesses of mixtures of two sounds, by their ratio.",
    "rare_classes": "Recall of classes with few clips and of the others, with and without "
    "resampling.",
    "rivals_shots": "Accuracy of each method by clips a class, with intervals over seeds; from the "
    "file that the notebook names, not of this run.",
    "rivals_costs": "Accuracy with 16 clips a class by the time of a fit; from the file that the "
    "notebook names, not of this run.",
    "efficiency_steps": "Time of a training step; measured on the machine that the notebook names, "
    "not in this run.",
    "efficiency_published": f"Time of an epoch on an A100 by its steps. {PUBLISHED}",
    "solved_steps": "Accuracy after each step from the centred mix to Solved PALM, and by clips a "
    "class beside PALM by SGD.",
    "solved_leads": "Accuracy of Solved PALM minus that of others on nine generated datasets; from "
    "the file that the notebook names, not of this run.",
    "two_models_methods": "Accuracy of each method on three models; from the file that the "
    "notebook names, not of this run.",
    "two_models_rates": "Accuracy and mean lambda of PALM by learning rate on three models; from "
    "the file that the notebook names, not of this run.",
    "two_models_lambdas": "Mean learned lambda of each class on two models; from the file that the "
    "notebook names, not of this run.",
    "language_zeroshot": "Zero-shot accuracy with class names in each language, with intervals "
    "over test clips.",
    "language_shots": "Accuracy of PALM by shots, with class names in English and in other "
    "languages.",
}


def find_caption(name: str) -> str:
    """The caption of a notebook's figure by the name of its file; "" for an unknown one."""
    if name in CAPTIONS:
        return CAPTIONS[name]
    for pattern, caption in CAPTIONS.items():
        before, found, after = pattern.partition("{}")
        match = found and re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", name)
        if match:
            return caption.replace("{}", match[1])
    return ""
