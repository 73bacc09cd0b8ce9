"""The loop between tasks and models, which knows neither: questions in, predictions and figures out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiobert.artefacts import provenance, sha256_of, write_json, write_text
from audiobert.auditorybench.data import Row, available_splits, load_split, split_path
from audiobert.auditorybench.metrics import Answered, Seen, share, summarise
from audiobert.auditorybench.models import Adapter, ModelOptions, load_model
from audiobert.auditorybench.protocol import PROTOCOLS, Prediction, ProtocolName, protocol_of
from audiobert.auditorybench.questions import Question, flip, label_set, make_question
from audiobert.auditorybench.stats import mean_and_sd, wilson_interval
from audiobert.auditorybench.tasks import Task, find_task
from audiobert.errors import InputError
from audiobert.progress import progress

SEED = "{seed}"
DEFAULT_TASKS = ("animal", "pitch")
DEFAULT_SPLITS = ("dev", "wiki")


@dataclass(frozen=True)
class Part:
    """One split of one task, as questions."""

    task: Task
    split: str
    protocol: ProtocolName
    path: Path
    questions: list[Question]
    flipped: list[Question | None]
    seen: Seen | None


@dataclass
class Plan:
    """What is asked: the parts, in the order of tasks and splits, and the train rows for the controls."""

    parts: list[Part]
    train: dict[str, list[Row]]
    protocol: ProtocolName
    artefacts: dict[str, Any] = field(default_factory=dict)


def make_plan(
    data: str | Path,
    tasks: Iterable[str | Task] = DEFAULT_TASKS,
    splits: Iterable[str] = DEFAULT_SPLITS,
    protocol: ProtocolName = "paper",
    *,
    limit: int | None = None,
) -> Plan:
    """Read the splits and turn their rows into questions.

    Parameters
    ----------
    limit
        Take the first so many rows of each split; for a quick look.

    Raises
    ------
    InputError
        When a file is missing or wrong; a task without one of the splits is passed over unless it has none of them.
    """
    chosen, wanted = [find_task(task) for task in tasks], list(dict.fromkeys(splits))
    plan = Plan([], {}, protocol)
    for task in chosen:
        present = available_splits(data, task)
        here = [split for split in wanted if split in task.files]
        if not here:
            raise InputError(
                f"task '{task.name}' has none of the splits {', '.join(wanted)}: it has {', '.join(task.files)}"
            )
        train = load_split(data, task, "train") if "train" in present else []
        plan.train[task.name] = train
        for split in here:
            rows = load_split(data, task, split)[:limit]
            plan.parts.append(_part(data, task, split, rows, train, protocol))
    for part in plan.parts:
        plan.artefacts[f"{part.task.name}.{part.split}"] = {"file": part.path.name, "sha256": sha256_of(part.path)}
    return plan


def _part(
    data: str | Path, task: Task, split: str, rows: Sequence[Row], train: Sequence[Row], wanted: ProtocolName
) -> Part:
    protocol = protocol_of(task.kind, wanted)
    path = split_path(data, task, split)
    with_choices = protocol == "multiple-choice" and task.kind != "comparison"
    candidates = None
    if task.kind == "comparison" or protocol == "candidates":
        candidates = label_set(task, train)
    questions = [make_question(row, task, path, candidates, with_choices=with_choices) for row in rows]
    flipped = [flip(question, task) for question in questions]
    return Part(task, split, protocol, path, questions, flipped, Seen.of(train) if train else None)


def ask(model: Adapter, part: Part) -> list[Answered]:
    """Ask a model all questions of a part, and those the other way round."""
    turned = [index for index, question in enumerate(part.flipped) if question is not None]
    questions = part.questions + [question for question in part.flipped if question is not None]
    predictions: list[Prediction | None] = [None] * len(questions)
    with progress() as bar:
        step = bar.add_task(f"{model.name}: {part.task.name} {part.split}", total=len(questions), note="questions")
        for index, answer in model.answer(questions, part.protocol):
            predictions[index] = answer
            bar.advance(step)
    n = len(part.questions)
    other = {row: predictions[n + place] for place, row in enumerate(turned)}
    answered = []
    for index, question in enumerate(part.questions):
        prediction = predictions[index]
        if prediction is None:
            raise RuntimeError(f"the adapter of '{model.name}' left {question.where} unanswered")
        answered.append(Answered(question, prediction, other.get(index)))
    return answered


def prediction_line(model: str, seed: int, part: Part, answered: Answered) -> dict[str, Any]:
    """One line of `--predictions`: enough to score again without the model."""
    question, said = answered.question, answered.prediction
    line = {
        "model": model,
        "task": question.task,
        "split": question.split,
        "row": question.row,
        "text": question.text,
        "answer": question.answer,
        "prediction": said.text,
        "correct": said.correct,
        "auditory": said.auditory,
        "spans": said.spans,
        "clips": said.clips,
        "protocol": part.protocol,
        "seed": seed,
        "rank": said.rank,
        "scores": said.scores,
    }
    if answered.flipped is not None:
        line["flipped"] = {"prediction": answered.flipped.text, "correct": answered.flipped.correct}
    return line


def evaluate_model(
    name: str, plan: Plan, options: ModelOptions, seeds: Sequence[int] = (0,), *, lines: list[dict[str, Any]]
) -> dict[str, Any]:
    """Evaluate one model, for each seed where its name has `{seed}`; appends its predictions to `lines`.

    Returns
    -------
    dict
        The object of `evaluate --out`.
    """
    used = list(seeds) if SEED in name else list(seeds)[:1]
    runs: list[list[dict[str, Any]]] = []
    artefacts: dict[str, Any] = {}
    kind = ""
    for seed in used:
        model = load_model(name.replace(SEED, str(seed)), plan.train, options)
        kind = model.kind
        artefacts["model" if len(used) == 1 else f"model.{seed}"] = model.artefacts
        figures = []
        for part in plan.parts:
            answered = ask(model, part)
            lines += [prediction_line(name, seed, part, a) for a in answered]
            figures.append({"task": part.task.name, "split": part.split, **summarise(answered, part.seen)})
        runs.append(figures)
    results = [
        {**over_seeds([run[index] for run in runs]), "seeds": used, "protocol": part.protocol}
        for index, part in enumerate(plan.parts)
    ]
    return {
        "model": name,
        "kind": kind,
        "protocol": plan.protocol,
        **provenance(artefacts={**artefacts, "data": plan.artefacts}),
        "results": results,
        "combined": combine(results),
    }


def over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One seed's figures as they are; of several the mean accuracy, its standard deviation, and each seed's figures."""
    if len(runs) == 1:
        return dict(runs[0])
    first = runs[0]
    mean, deviation = mean_and_sd([run["correct"] / run["n"] for run in runs])
    correct, _ = mean_and_sd([run["correct"] for run in runs])
    low, high = wilson_interval(correct, first["n"])
    return {
        "task": first["task"],
        "split": first["split"],
        "n": first["n"],
        "correct": round(correct, 2),
        "accuracy": round(mean, 4),
        "ci95": [round(low, 4), round(high, 4)],
        "sd": round(deviation, 4) if deviation is not None else None,
        "per_seed": list(runs),
        "rows_correct": first["rows_correct"],
    }


def combine(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All tasks together, split by split, where a split has more than one task."""
    combined = []
    for split in dict.fromkeys(result["split"] for result in results):
        here = [result for result in results if result["split"] == split]
        if len(here) < 2:
            continue
        n = sum(result["n"] for result in here)
        figures = share(sum(result["correct"] for result in here), n)
        assert figures is not None
        entry = {"split": split, **figures}
        if all("per_seed" in result for result in here):
            seeds = zip(*(result["per_seed"] for result in here), strict=True)
            accuracies = [sum(run["correct"] for run in runs) / n for runs in seeds]
            entry["sd"] = round(mean_and_sd(accuracies)[1] or 0.0, 4)
        combined.append(entry)
    return combined


def evaluate(
    models: Sequence[str],
    data: str | Path,
    *,
    tasks: Iterable[str | Task] = DEFAULT_TASKS,
    splits: Iterable[str] = DEFAULT_SPLITS,
    protocol: ProtocolName = "paper",
    seeds: Sequence[int] = (0,),
    options: ModelOptions | None = None,
    limit: int | None = None,
    out: str | Path | None = None,
    predictions: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Evaluate models on a benchmark folder.

    Parameters
    ----------
    models
        Names as `load_model` takes them; `{seed}` in a name stands for each of `seeds` in turn.
    out, predictions
        Files that are written after each model, whole, so that nothing is lost when a later one fails.

    Returns
    -------
    list of dict
        One object a model, in the form of `evaluate --out`.

    Raises
    ------
    InputError, RemoteError
        See `make_plan`, `load_model` and the adapters.
    """
    if not models:
        raise InputError("no model to evaluate: give at least one, like 'audiobert evaluate mini'")
    plan = make_plan(data, tasks, splits, protocol, limit=limit)
    lines: list[dict[str, Any]] = []
    reports: list[dict[str, Any]] = []
    for name in dict.fromkeys(models):
        reports.append(evaluate_model(name, plan, options or ModelOptions(), seeds, lines=lines))
        if out is not None:
            write_results(out, reports)
        if predictions is not None:
            write_text(predictions, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return reports


def write_results(path: str | Path, reports: Sequence[dict[str, Any]]) -> None:
    """Write results: one model's object as it is, several as a list of such objects."""
    write_json(path, reports[0] if len(reports) == 1 else list(reports))


def parse_protocol(name: str) -> ProtocolName:
    """A protocol by name.

    Raises
    ------
    InputError
        When there is no such protocol.
    """
    for protocol in PROTOCOLS:
        if name == protocol:
            return protocol
    raise InputError(f"no protocol '{name}': there are {', '.join(PROTOCOLS)}")


def parse_seeds(text: str) -> list[int]:
    """Seeds from "0,1,2" or "0-4".

    Raises
    ------
    InputError
        When the text is no such list.

    >>> parse_seeds("0-2,7")
    [0, 1, 2, 7]
    """
    seeds: list[int] = []
    for item in text.split(","):
        first, _, last = item.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise InputError(f"'{text}' is no list of seeds, like 0,1,2 or 0-4")
        seeds += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(seeds))
