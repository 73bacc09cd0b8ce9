"""Evaluate models on tasks: questions in, predictions and figures out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from audiobert.artefacts import provenance, sha256_of, write_json, write_text
from audiobert.auditorybench.data import Row, available_splits, load_split, split_path
from audiobert.auditorybench.interfaces import Prediction, ProtocolName
from audiobert.auditorybench.metrics import Answered, Seen, rows_by_seed, share, summarise
from audiobert.auditorybench.models import Adapter, ModelOptions, load_adapter
from audiobert.auditorybench.protocol import PROTOCOLS, protocol_of
from audiobert.auditorybench.questions import Question, flip, label_set, make_question
from audiobert.auditorybench.stats import mean_and_sd, two_level_difference
from audiobert.auditorybench.tasks import Task, auditorybench_tasks, find_task
from audiobert.errors import InputError
from audiobert.progress import progress

SEED = "{seed}"
UNREAD = "unread"  # the task on a model's own bank; see `unread.py`
DEFAULT_SPLITS = ("dev", "wiki")
MOST_SEEDS = 1_000


@dataclass(frozen=True)
class Part:
    """Hold one split of one task, as questions."""

    task: Task
    split: str
    protocol: ProtocolName
    path: Path
    questions: list[Question]
    flipped: list[Question | None]
    seen: Seen | None


@dataclass
class Plan:
    """Parts to evaluate, in the order of tasks and splits, and the train rows for the controls.

    With `unread`, a model is also evaluated on the sounds of its own bank that no training contained.
    """

    parts: list[Part]
    train: dict[str, list[Row]]
    protocol: ProtocolName
    limit: int | None = None
    artefacts: dict[str, Any] = field(default_factory=dict)
    unread: bool = False


def make_plan(
    data: str | Path,
    tasks: Iterable[str | Task] | None = None,
    splits: Iterable[str] = DEFAULT_SPLITS,
    protocol: ProtocolName = "paper",
    *,
    limit: int | None = None,
) -> Plan:
    """Read the splits and turn their rows into questions.

    A task without one of the splits is passed over unless it has none of them.

    Parameters
    ----------
    tasks
        Names, paths of YAML files, or tasks; by default AuditoryBench's. `unread` has no rows in the folder.
    limit
        Take only the first rows of each split, at most this many.
    """
    names = auditorybench_tasks() if tasks is None else list(tasks)
    wanted = list(dict.fromkeys(splits))
    plan = Plan([], {}, protocol, limit, unread=UNREAD in names)
    for task in [find_task(name) for name in names if name != UNREAD]:
        here = [split for split in wanted if split in task.files]
        if not here:
            raise InputError(
                f"task '{task.name}' has none of the splits {', '.join(wanted)}: it has {', '.join(task.files)}"
            )
        train = load_split(data, task, "train") if "train" in available_splits(data, task) else []
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
    """Ask a model all questions of a part, and its comparisons with their spans exchanged."""
    flipped = [question for question in part.flipped if question is not None]
    questions = part.questions + flipped
    predictions: dict[int, Prediction] = {}
    with progress() as bar:
        step = bar.add_task(f"{model.name}: {part.task.name} {part.split}", total=len(questions), note="questions")
        for index, answer in model.answer(questions, part.protocol):
            predictions[index] = answer
            bar.advance(step)
    for index, question in enumerate(questions):
        if index not in predictions:
            raise RuntimeError(f"the adapter of '{model.name}' left {question.where} unanswered")
    said = [predictions[index] for index in range(len(questions))]
    said_of_flipped = iter(said[len(part.questions) :])
    return [
        Answered(question, prediction, None if turned is None else next(said_of_flipped))
        for question, turned, prediction in zip(part.questions, part.flipped, said, strict=False)
    ]


def prediction_line(
    model: str, seed: int, protocol: ProtocolName, answered: Answered, split: str | None = None
) -> dict[str, Any]:
    """Return one line of `--predictions`, from which the model can be scored again."""
    question, said = answered.question, answered.prediction
    line = {
        "model": model,
        "task": question.task,
        "split": split or question.split,
        "row": question.row,
        "text": question.text,
        "answer": question.answer,
        "prediction": said.text,
        "correct": said.correct,
        "auditory": said.auditory,
        "spans": said.spans,
        "clips": said.clips,
        "protocol": protocol,
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
    """Evaluate one model, for each seed where its name has `{seed}`; append its predictions to `lines`."""
    used = list(seeds) if SEED in name else list(seeds)[:1]
    runs: list[list[dict[str, Any]]] = []
    artefacts: dict[str, Any] = {}
    kind = ""
    for seed in used:
        model = load_adapter(name.replace(SEED, str(seed)), plan.train, options)
        kind = model.kind
        artefacts["model" if len(used) == 1 else f"model.{seed}"] = model.artefacts
        figures = []
        for part in plan.parts:
            answered = ask(model, part)
            lines += [prediction_line(name, seed, part.protocol, a) for a in answered]
            named = {"task": part.task.name, "title": part.task.title, "split": part.split}
            figures.append({**named, **summarise(answered, part.seen)})
        if plan.unread:
            figures += unread_figures(model, name, seed, lines, limit=plan.limit)
        runs.append(figures)
    protocols = [*(part.protocol for part in plan.parts), *["paper"] * (len(runs[0]) - len(plan.parts))]
    results = [
        {**merge_seeds(same), "seeds": used, "protocol": protocol}
        for same, protocol in zip(zip(*runs, strict=True), protocols, strict=True)
    ]
    return {
        "model": name,
        "kind": kind,
        "protocol": plan.protocol,
        "limit": plan.limit,
        **provenance(artefacts={**artefacts, "data": plan.artefacts}),
        "results": results,
        "combined": combine(results[: len(plan.parts)]),
    }


def unread_figures(
    model: Adapter, name: str, seed: int, lines: list[dict[str, Any]], *, limit: int | None = None
) -> list[dict[str, Any]]:
    """Ask an AudioBERT about sounds never read about; return its figures and append its predictions to `lines`."""
    from audiobert.auditorybench.models.audiobert import AudioBertModel
    from audiobert.auditorybench.unread import evaluate_unread

    state = ("on", "detected", False)
    if not isinstance(model, AudioBertModel) or (model.sound, model.span_source, model.chat) != state:
        raise InputError(
            f"the task {UNREAD} is for an AudioBERT with a bank, evaluated with and without sound, not for '{name}'"
            f"{' with --chat' if getattr(model, 'chat', False) else ''}"
        )
    figures = []
    for condition in evaluate_unread(model.pipeline, name=name, limit=limit):
        lines += [prediction_line(name, seed, "paper", one, condition.split) for one in condition.answered]
        figures.append({"task": condition.task, "split": condition.split, **summarise(condition.answered, None)})
    return figures


def merge_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge the figures of several seeds on one split.

    Of one seed they stay as they are. Of several: the mean accuracy with an interval over seeds and rows, its standard
    deviation, the mean of both ways, and each seed's figures.
    """
    if len(runs) == 1:
        return dict(runs[0])
    first = runs[0]
    merged: dict[str, Any] = {key: first[key] for key in ("task", "title", "split") if key in first}
    merged |= _mean_figures(runs, rows_by_seed({"per_seed": list(runs)}))
    both = [run["both_ways"]["accuracy"] for run in runs if "both_ways" in run]
    if len(both) == len(runs):
        merged["both_ways"] = {"n": first["both_ways"]["n"], "accuracy": round(mean_and_sd(both)[0], 4)}
    return {**merged, "per_seed": list(runs)}


def _mean_figures(runs: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[int]] | None) -> dict[str, Any]:
    """Return n, mean correct, accuracy, its interval over seeds and rows, and its standard deviation over seeds."""
    n = runs[0]["n"]
    accuracy, deviation = mean_and_sd([run["correct"] / n for run in runs])
    figures: dict[str, Any] = {"n": n, "correct": round(accuracy * n, 2), "accuracy": round(accuracy, 4)}
    if rows is not None:
        found = two_level_difference(rows, [[0] * n])
        figures["ci95"] = [round(max(0.0, found.low), 4), round(min(1.0, found.high), 4)]
    return {**figures, "sd": round(deviation, 4) if deviation is not None else None}


def combine(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures of all tasks together, split by split, where a split has more than one task."""
    combined = []
    for split in dict.fromkeys(result["split"] for result in results):
        here = [result for result in results if result["split"] == split]
        if len(here) < 2:
            continue
        n = sum(result["n"] for result in here)
        figures = share(sum(result["correct"] for result in here), n) or {}
        if all("per_seed" in result for result in here):
            seeds = list(zip(*(result["per_seed"] for result in here), strict=True))
            runs = [{"n": n, "correct": sum(run["correct"] for run in runs)} for runs in seeds]
            rows = [[int(letter) for run in runs for letter in run["rows_correct"]] for runs in seeds]
            figures = _mean_figures(runs, rows)
        combined.append({"split": split, **figures})
    return combined


def evaluate(
    models: Sequence[str],
    data: str | Path,
    *,
    tasks: Iterable[str | Task] | None = None,
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
        Names as `load_adapter` takes them; `{seed}` in a name stands for each of `seeds` in turn.
    limit
        Evaluate only the first rows of each split, at most this many. The results say so.
    out, predictions
        Files that are written whole after each model, so that nothing is lost if a later one fails.
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
    """Write results: the object of one model, or a list of the objects of several."""
    write_json(path, reports[0] if len(reports) == 1 else list(reports))


def parse_protocol(name: str) -> ProtocolName:
    """Return a protocol by name."""
    if name in PROTOCOLS:
        return cast(ProtocolName, name)
    raise InputError(f"no protocol '{name}': there are {', '.join(PROTOCOLS)}")


def parse_seeds(text: str) -> list[int]:
    """Read seeds from "0,1,2" or "0-4".

    >>> parse_seeds("0-2, 7")
    [0, 1, 2, 7]
    """
    seeds: list[int] = []
    for item in text.split(","):
        first, dash, last = (part.strip() for part in item.partition("-"))
        bounds = (first, last) if dash else (first, first)
        if not all(bound.isascii() and bound.isdecimal() for bound in bounds) or int(bounds[1]) < int(bounds[0]):
            raise InputError(f"--seeds is {text!r}; give whole numbers separated by commas, such as 0,1,2 or 0-4")
        if int(bounds[1]) - int(bounds[0]) >= MOST_SEEDS:
            raise InputError(f"--seeds is {text!r}; at most {MOST_SEEDS} seeds are taken")
        seeds += range(int(bounds[0]), int(bounds[1]) + 1)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds is {text!r}, which names a seed twice; give different whole numbers")
    return seeds
