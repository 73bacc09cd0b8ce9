"""Run the human evaluation of Table IV: export a sample for annotators, import their judgements."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from audiobert.artefacts import write_json, write_text
from audiobert.construct.own_files import own_files
from audiobert.construct.records import AnimalRow, PitchRow, read_records
from audiobert.construct.sheets import read_sheet, write_sheet
from audiobert.errors import InputError, needs
from audiobert.settings import Settings

KINDS: dict[str, type[AnimalRow | PitchRow]] = {"animal": AnimalRow, "pitch": PitchRow}
_COLUMNS = ("id", "task", "sentence", "answer", "spans", "accuracy", "fluency", "comment")
_ACCURACY = {"1": 1, "yes": 1, "y": 1, "true": 1, "correct": 1, "0": 0, "no": 0, "n": 0, "false": 0, "incorrect": 0}
_FLUENCY = {"1": 1, "2": 2, "3": 3}
_LABEL_CONFIG = """<View>
  <Header value="Does the answer fit the sentence, and is the sentence good English?"/>
  <Text name="sentence" value="$sentence"/>
  <Text name="answer" value="[MASK] = $answer"/>
  <Text name="spans" value="sounds: $spans"/>
  <Choices name="accuracy" toName="sentence" choice="single" required="true" showInline="true">
    <Choice value="correct"/>
    <Choice value="incorrect"/>
  </Choices>
  <Rating name="fluency" toName="sentence" maxRating="3" required="true"/>
  <TextArea name="comment" toName="sentence" maxSubmissions="1" rows="2"/>
</View>
"""
_GUIDE = """# How to judge

For each row, without looking anything up and without talking to the other annotators:

- **accuracy**: 1 when the answer is right for the sentence (it may be one of several right ones), 0 when it is not.
- **fluency**: grammar, spelling, punctuation, choice of words, structure. 3 good, 2 has flaws but is understood, 1 bad.
- **comment**: optional.

Fill in the columns of your own sheet, or label the tasks in Label Studio (`label_studio_config.xml` is the labelling
interface; import the `label_studio_*.json` files and let every task be labelled by each annotator).
"""


class ReviewSettings(Settings):
    """Settings of the sample: rows per task, number of annotators, split."""

    per_task: int = Field(default=100, ge=1)
    annotators: int = Field(default=3, ge=1)
    split: str = "test"
    seed: int = 0


@dataclass(frozen=True)
class Agreement:
    """Accuracy, fluency and agreement for one task; an alpha is None where it is undefined (all judged the same)."""

    task: str
    items: int
    annotators: int
    judgements: int
    accuracy_percent: float
    fluency: float
    accuracy_alpha: float | None
    fluency_alpha: float | None


def export_review(dataset: Path, out: Path, settings: ReviewSettings, *, overwrite: bool = False) -> dict[str, int]:
    """Write a sample of each task for the annotators: sheets, Label Studio's tasks and interface, a guide.

    With `overwrite`, sheets that are filled in are replaced, too.
    """
    files = {task: dataset / "data" / task / f"{settings.split}.parquet" for task in KINDS}
    rows = {task: read_records(file, KINDS[task]) for task, file in files.items() if file.is_file()}
    if not rows:
        raise InputError(
            f"{dataset} has no {settings.split} split with Parquet files; run 'audiobert construct split' first"
        )
    with own_files(out, overwrite=overwrite) as part:
        return _write_sample(rows, part, settings)


def _write_sample(rows_of: Mapping[str, Sequence[Any]], out: Path, settings: ReviewSettings) -> dict[str, int]:
    counts = {}
    for task, rows in rows_of.items():
        chosen = random.Random(f"{settings.seed}-{task}").sample(range(len(rows)), min(settings.per_task, len(rows)))
        sample = [_shown(task, rows[index]) for index in sorted(chosen)]
        for number in range(1, settings.annotators + 1):
            order = list(sample)
            random.Random(f"{settings.seed}-{task}-{number}").shuffle(order)
            write_sheet(out / f"{task}_annotator_{number}.csv", _COLUMNS, [_inert(row) for row in order])
        write_json(out / f"label_studio_{task}.json", [{"data": row} for row in sample])
        counts[task] = len(sample)
    write_text(out / "label_studio_config.xml", _LABEL_CONFIG)
    write_text(out / "GUIDE.md", _GUIDE)
    return counts


def _shown(task: str, row: AnimalRow | PitchRow) -> dict[str, str]:
    spans = row.span if isinstance(row, AnimalRow) else f"{row.span1} | {row.span2}"
    return {"id": row.id, "task": task, "sentence": row.sentence, "answer": row.answer, "spans": spans}


def _inert(row: dict[str, str]) -> dict[str, str]:
    """Return a row without text that a spreadsheet takes for a formula."""
    formulas = {name: text for name, text in row.items() if name != "id" and text.startswith(tuple("=+-@\t\r"))}
    return row | {name: f"'{text}" for name, text in formulas.items()}


@dataclass(frozen=True)
class _Judgement:
    task: str
    item: str
    annotator: str
    accuracy: int | None
    fluency: int | None


def import_review(paths: Sequence[Path]) -> list[Agreement]:
    """Compute accuracy, fluency and Krippendorff's alpha of each task from filled-in sheets and Label Studio exports.

    A sheet is one annotator; in a Label Studio export the annotator is the one who completed an annotation. Accuracy
    and fluency are means over all judgements; alpha is nominal for accuracy and ordinal for fluency.
    """
    judgements: list[_Judgement] = []
    for path in paths:
        if not path.is_file():
            raise InputError(f"no file {path}: give filled-in sheets (.csv) or Label Studio exports (.json)")
        judgements += _read_label_studio(path) if path.suffix == ".json" else _read_sheet(path)
    judgements = [one for one in judgements if one.accuracy is not None or one.fluency is not None]
    if not judgements:
        raise InputError("nothing is filled in: the columns accuracy (1 or 0) and fluency (1 to 3) are empty")
    for (item, annotator), count in Counter((one.item, one.annotator) for one in judgements).items():
        if count > 1:
            raise InputError(f"'{annotator}' judges '{item}' twice; give each annotator's sheet once")
    tasks = sorted({one.task for one in judgements})
    return [_agreement(task, [one for one in judgements if one.task == task]) for task in tasks]


def _read_sheet(path: Path) -> list[_Judgement]:
    return [
        _judgement(row, row, path.stem, where)
        for where, row in read_sheet(path, ("id", "task", "accuracy", "fluency"), "'construct review export'")
    ]


def _judgement(row: Mapping[str, Any], said: Mapping[str, str], annotator: str, where: str) -> _Judgement:
    values: dict[str, int | None] = {}
    for field, known, wanted in (
        ("accuracy", _ACCURACY, "1 (right) or 0 (wrong)"),
        ("fluency", _FLUENCY, "1, 2 or 3"),
    ):
        text = said.get(field, "").strip().lower()
        if text and text not in known:
            raise InputError(f"{where}: {field} is '{text}'; {wanted} is wanted")
        values[field] = known.get(text)
    return _Judgement(str(row["task"]), str(row["id"]), annotator, **values)


def _read_label_studio(path: Path) -> list[_Judgement]:
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
        judgements = []
        for task in tasks:
            for annotation in task["annotations"]:
                if annotation.get("was_cancelled"):
                    continue
                said: dict[str, str] = {}
                for result in annotation["result"]:
                    value = result["value"]
                    said[result["from_name"]] = str(
                        value["choices"][0] if "choices" in value else value.get("rating", "")
                    )
                who = annotation.get("completed_by", "unknown")
                who = str(who.get("email") or who.get("id")) if isinstance(who, dict) else str(who)
                judgements.append(_judgement(task["data"], said, who, f"{path}, task {task['data']['id']}"))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no Label Studio export in JSON ({type(error).__name__}: {error})") from None
    return judgements


def _agreement(task: str, judgements: Sequence[_Judgement]) -> Agreement:
    items = sorted({one.item for one in judgements})
    annotators = sorted({one.annotator for one in judgements})
    tables = np.full((2, len(annotators), len(items)), np.nan)  # accuracy and fluency
    for one in judgements:
        place = annotators.index(one.annotator), items.index(one.item)
        for table, value in zip(tables, (one.accuracy, one.fluency), strict=True):
            if value is not None:
                table[place] = value
    accuracy, fluency = (float(np.nanmean(table)) if np.isfinite(table).any() else float("nan") for table in tables)
    return Agreement(
        task=task,
        items=len(items),
        annotators=len(annotators),
        judgements=len(judgements),
        accuracy_percent=round(100 * accuracy, 2),
        fluency=round(fluency, 3),
        accuracy_alpha=_alpha(tables[0], "nominal"),
        fluency_alpha=_alpha(tables[1], "ordinal"),
    )


def _alpha(table: np.ndarray, level: Literal["nominal", "ordinal"]) -> float | None:
    """Compute Krippendorff's alpha of `(annotators, items)`; None if nothing is judged twice or all are equal."""
    with needs("krippendorff", "construct"):
        import krippendorff
    judged_twice = np.isfinite(table).sum(axis=0) >= 2
    values = table[:, judged_twice]
    if not judged_twice.any() or len(np.unique(values[np.isfinite(values)])) < 2:
        return None
    return round(float(krippendorff.alpha(reliability_data=values, level_of_measurement=level)), 4)
