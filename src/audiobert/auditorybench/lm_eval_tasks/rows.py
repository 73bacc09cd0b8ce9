"""Load rows of AuditoryBench for lm-evaluation-harness, from the folder that AUDITORYBENCH_DIR names.

The rows, prompts and options are those of `audiobert evaluate`, so that both give the same answers row by row.
"""

from __future__ import annotations

from typing import Any


def load(task: str, protocol: str, limit: int | None = None, **_: Any) -> dict[str, Any]:
    """Return the splits of a task that the folder has, with `query`, `choices`, `gold`, `answer` and `row`."""
    from datasets import Dataset

    from audiobert.auditorybench.data import available_splits
    from audiobert.auditorybench.download import data_folder
    from audiobert.auditorybench.evaluate import make_plan, parse_protocol
    from audiobert.auditorybench.tasks import find_task

    folder, found = data_folder(), find_task(task)
    splits = [split for split in available_splits(folder, found) if split != "train"]
    plan = make_plan(folder, [found], splits, parse_protocol(protocol), limit=limit)
    loaded = {}
    for part in plan.parts:
        rows = []
        for question in part.questions:
            choices = list(question.candidates or ())
            folded = [choice.casefold() for choice in choices]
            answer = question.answer.casefold()
            # An answer that is not among the candidates cannot be right; -1 is equal to no choice.
            gold = folded.index(answer) if answer in folded else -1
            shown = {"row": question.row, "query": question.prompt, "answer": question.answer}
            rows.append({**shown, "choices": choices, "gold": gold})
        loaded[part.split] = Dataset.from_list(rows)
    return loaded


def said_the_answer(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return the accuracy of a completion, by the same normalisation as `audiobert evaluate`."""
    from audiobert.auditorybench.questions import normalise_reply

    return {"acc": float(normalise_reply(results[0]) == normalise_reply(doc["answer"]))}
