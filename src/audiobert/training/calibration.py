"""Calibrate retrieval: from the cosine of query and clip to the odds that the clip is of the kind it names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from audiobert.bank.names import plain_name
from audiobert.clap import ClapProjections
from audiobert.retrieve import Calibration
from audiobert.training.clips import TrainingClips


@torch.no_grad()
def fit_calibration(
    projections: ClapProjections,
    audio_vectors: Tensor,
    clips: TrainingClips,
    sentence_vectors: dict[str, Tensor],
    chosen: np.ndarray,
) -> dict[str, Any]:
    """Fit the log-odds of a match by sound, on clips that CLAP was not trained on; those by name stay as they are.

    Names are compared by the frozen backbone's vectors, which no training moves. Return the `Calibration` as it is
    saved.

    Parameters
    ----------
    audio_vectors : Tensor
        `(clips, clap_dim)`.
    chosen : np.ndarray
        `(clips,)` bool, the held-out clips.
    """
    members = np.flatnonzero(chosen)
    labels = sorted({clips.labels[i] for i in members if clips.labels[i]})
    if len(labels) < 2:
        return Calibration().model_dump(mode="json")
    device = projections.text_projection.weight.device
    queries = torch.stack([sentence_vectors[plain_name(label)] for label in labels]).to(device)
    cosines = (projections.text_vectors(queries).cpu() @ audio_vectors[members].T).numpy()  # (labels, clips)
    same = np.array([[clips.labels[i] == label for i in members] for label in labels])
    line = fit_logistic(cosines.ravel(), same.ravel())
    return Calibration(sound=line).model_dump(mode="json")


def fit_logistic(values: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Fit slope and offset of the log-odds of a yes or no on one value by maximum likelihood.

    >>> slope, offset = fit_logistic(np.array([0.0, 0.1, 0.4, 0.6, 0.9, 1.0]), np.array([0, 0, 1, 0, 1, 1]))
    >>> slope > 0 > offset
    True
    """
    x, y = values.astype(np.float64), positive.astype(np.float64)

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        odds = line[0] * x + line[1]
        wrong = 1.0 / (1.0 + np.exp(-odds)) - y
        return float(np.logaddexp(0.0, odds).mean() - (y * odds).mean()), np.array([(wrong * x).mean(), wrong.mean()])

    found = minimize(loss, np.array([1.0, -1.0]), jac=True, method="BFGS")
    return float(found.x[0]), float(found.x[1])
