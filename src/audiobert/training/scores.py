"""Right and wrong under the paper's protocol, row by row, while the model is in training's hands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from audiobert.adapters import AUDIO
from audiobert.missing_word import Lexicon, blank_sentence, join_rows
from audiobert.parts import Parts
from audiobert.training.objective import AudioBertObjective, BatchMaker
from audiobert.training.processes import processes
from audiobert.training.questions import Question

# From questions to logits `(masks, vocabulary)`; all of them have spans, or none has.
Ask = Callable[[Sequence[Question]], Tensor]


class Asker:
    """The model in training's hands, asked as a user's model is: switched on only where there are spans."""

    def __init__(self, objective: AudioBertObjective, parts: Parts, make_batch: BatchMaker, lexicon: Lexicon) -> None:
        self.objective, self.parts, self.make_batch, self.lexicon = objective, parts, make_batch, lexicon

    def __call__(self, questions: Sequence[Question]) -> Tensor:
        """Logits `(masks, vocabulary)`; log-probabilities where the word scorer speaks, too."""
        device, model, texts = processes().device, self.objective.model, self.make_batch.texts
        self.objective.to(device).eval()
        batch = self.make_batch(questions).to(device)
        auditory = bool(questions[0].spans)
        bf16 = torch.autocast(device.type, torch.bfloat16, enabled=self.objective.config.precision == "bf16")
        with self.parts.adapters.on(*((AUDIO,) if auditory else ())), bf16:
            injection = self.objective.injection(batch) if auditory else None
            logits = model(batch.inputs.input_ids, batch.inputs.attention_mask, batch.inputs.masks, injection)
        if not auditory or model.word_scorer is None or texts is None:
            return logits
        log_probs = logits.float().log_softmax(dim=-1).cpu()
        rows = dict(enumerate(log_probs.split([len(question.answer_ids) for question in questions])))
        mask = self.parts.tokenizer.mask_token
        blanks = [(row, s) for row, q in enumerate(questions) if (s := blank_sentence(q.text, mask)) is not None]
        which, sentences = [row for row, _ in blanks], texts.of_texts([sentence for _, sentence in blanks])
        joined = join_rows(model.word_scorer, self.lexicon, rows, which, sentences.to(device))
        return torch.cat(list(joined.values()))


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


def both_ways(results: Sequence[dict[str, Any]], turned: Sequence[dict[str, Any]]) -> float:
    """Share of the comparisons that are right both as published and with their spans exchanged (`turned`)."""
    right = {(result["task"], result["split"], result["row"]) for result in results if result["correct"]}
    both = [result["correct"] and (result["task"], result["split"], result["row"]) in right for result in turned]
    return float(np.mean(both)) if both else 0.0
