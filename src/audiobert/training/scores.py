"""Right and wrong under the paper's protocol, row by row, while the model is in training's hands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from audiobert.training.questions import Question

# From questions to logits `(masks, vocabulary)`; all of them have spans, or none has.
Ask = Callable[[Sequence[Question]], Tensor]


@torch.no_grad()
def score_questions(
    questions: Sequence[Question], ask: Ask, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 128
) -> list[dict[str, Any]]:
    """Which questions are answered right: all wordpieces at the masks, or the higher of the two words' logits.

    Questions without spans are asked apart from those with spans: for them the model is switched off.
    """
    pair = [int(tokenizer.convert_tokens_to_ids(word)) for word in ("higher", "lower")]  # type: ignore[arg-type]
    results: list[dict[str, Any]] = [{} for _ in questions]
    for auditory in (True, False):
        order = sorted(
            (i for i, q in enumerate(questions) if bool(q.spans) is auditory), key=lambda i: len(questions[i].text)
        )
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            logits, at = ask([questions[i] for i in members]), 0
            for index in members:
                question = questions[index]
                own, at = logits[at : at + len(question.answer_ids)], at + len(question.answer_ids)
                if question.answer_ids[0] in pair and len(question.answer_ids) == 1:
                    said = [pair[int(own[0, pair].argmax())]]
                else:
                    said = own.argmax(dim=-1).tolist()
                results[index] = {
                    "task": question.task,
                    "split": question.split,
                    "row": question.row,
                    "auditory": auditory,
                    "prediction": tokenizer.decode(said),
                    "correct": tuple(said) == question.answer_ids,
                }
    return results


def accuracies(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Accuracy by task and split, and of both tasks together, as `animal.dev` and `combined.dev`."""
    groups: dict[str, list[bool]] = {}
    for result in results:
        for task in (result["task"], "combined"):
            groups.setdefault(f"{task}.{result['split']}", []).append(result["correct"])
    return {name: float(np.mean(hits)) for name, hits in sorted(groups.items())}
