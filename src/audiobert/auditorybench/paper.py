"""Hold the paper's figures (arXiv 2409.08199), in percent, for tables that set new rows beside them."""

from __future__ import annotations

SOURCE = "AudioBERT: Audio Knowledge Augmented Language Model (ICASSP 2025, arXiv 2409.08199)"

# Columns of Tables II and III: (task, split), `combined` being both tasks together.
COLUMNS: tuple[tuple[str, str], ...] = tuple(
    (task, split) for task in ("animal", "pitch", "combined") for split in ("dev", "test", "wiki")
)

PublishedRow = tuple[str, tuple[float, ...], tuple[float, ...] | None]

# Table III, accuracy: method, means, standard deviations over 5 seeds (None where one run is reported).
TABLE_3: tuple[PublishedRow, ...] = (
    ("BERT-base", (15.51, 13.46, 3.05, 59.42, 60.41, 48.06, 44.72, 44.61, 45.72), None),
    ("BERT-large", (16.53, 15.85, 5.58, 59.59, 58.90, 54.90, 45.17, 44.41, 52.36), None),
    ("RoBERTa-base", (14.67, 14.04, 2.54, 54.50, 55.84, 47.45, 41.16, 41.77, 45.14), None),
    ("RoBERTa-large", (16.36, 14.70, 7.61, 55.26, 56.64, 48.80, 42.23, 42.52, 46.68), None),
    ("Gemma2-2B", (14.33, 15.11, 6.60, 59.25, 60.45, 47.86, 44.21, 45.19, 45.73), None),
    ("LLaMA3.1-8B", (23.10, 21.80, 16.24, 61.46, 62.55, 47.72, 48.62, 48.83, 46.10), None),
    (
        "AudioBERT (BERT-base)",
        (38.28, 36.63, 14.32, 73.18, 74.83, 55.31, 61.49, 61.97, 53.20),
        (0.27, 0.38, 1.66, 0.95, 0.70, 2.38, 0.72, 0.59, 2.34),
    ),
    (
        "AudioBERT (BERT-large)",
        (37.30, 36.69, 15.03, 75.11, 76.31, 56.27, 62.45, 62.97, 54.14),
        (0.47, 0.27, 1.17, 0.80, 0.60, 1.18, 0.69, 0.49, 1.18),
    ),
)

# Table II, F1 of the span detector: trained on, means, standard deviations.
TABLE_2: tuple[PublishedRow, ...] = (
    (
        "trained on animal",
        (92.75, 92.76, 100.0, 34.87, 34.61, 60.37, 43.67, 43.72, 60.96),
        (0.37, 0.19, 0.0, 8.48, 8.17, 12.61, 7.01, 6.77, 12.42),
    ),
    (
        "trained on pitch",
        (52.63, 52.19, 79.08, 94.76, 95.04, 91.12, 88.64, 95.04, 89.89),
        (6.73, 6.40, 13.75, 0.13, 0.09, 2.12, 0.47, 0.43, 2.25),
    ),
    (
        "trained on both",
        (92.00, 92.67, 100.0, 94.88, 95.12, 92.47, 94.55, 94.84, 92.06),
        (0.39, 0.25, 0.0, 0.24, 0.24, 1.76, 0.19, 0.21, 1.74),
    ),
)
