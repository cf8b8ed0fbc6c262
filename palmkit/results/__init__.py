"""Results: tables, comparison with the paper, statistics, figures, report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["compare", "compare_with_paper", "verdict", "verdict_table"],
        "confidence": [
            "calibration_error",
            "calibration_table",
            "confidence_frame",
            "probabilities",
            "reliability",
            "unknown_auroc",
        ],
        "findings": ["Findings"],
        "lambdas": ["class_relations", "predict_without", "zeroed_lambdas"],
        "method_style": ["method_color", "method_label", "order_methods"],
        "pages": ["changed_parameters", "claim_table", "findings_note"],
        "per_class": ["class_frame", "lambda_frame", "per_clip_accuracy", "right_by_seed"],
        "statistics": [
            "DIFFERENCE",
            "SHARE",
            "compare_clips",
            "compare_paired",
            "critical_difference",
            "describe_difference",
            "difference_margin",
            "equivalence_test",
            "friedman",
            "holm",
            "mean_ranks",
            "paired_bootstrap",
            "seed_clip_interval",
            "seed_interval",
            "sign_test",
        ],
        "tables": [
            "AVERAGE",
            "METHOD_NAMES",
            "intervals",
            "load_rows",
            "result_tables",
            "select",
            "setting",
            "summarise",
            "to_wide",
            "write_tables",
        ],
        "variance": [
            "intraclass_correlation",
            "share_explained",
            "shuffled_shares",
            "variance_components",
        ],
    },
)
