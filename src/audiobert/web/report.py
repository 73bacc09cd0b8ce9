"""Write one HTML file from what `evaluate` wrote, with nothing in it that is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiobert.artefacts import provenance, write_text
from audiobert.auditorybench import paper
from audiobert.auditorybench.models import UNHEARD
from audiobert.auditorybench.table_writers import as_text
from audiobert.auditorybench.tables import (
    accuracy_table,
    detector_table,
    is_control,
    pairwise,
    read_results,
    task_titles,
)
from audiobert.bank import AudioBank
from audiobert.errors import AudioBertError, InputError
from audiobert.web import figures as draw
from audiobert.web.findings import STATES, commands, headline, made_of, sound_adds
from audiobert.web.predictions import (
    Key,
    Line,
    by_answer,
    by_pitch_difference,
    calibration,
    clips_by_span,
    confusions,
    examples,
    key_of,
    of_model,
    read_predictions,
    retrieved_pitches,
)
from audiobert.web.retrieval import TOP_K, retrieval_by_class
from audiobert.web.views import environment, pieces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from audiobert.pipeline import AudioBert

FIGURE_1 = (
    "Meow is the sound a [MASK] makes.",
    "The sound of a piccolo has a [MASK] pitch than the sound of a double bass.",
)
FIGURE_1_WORDS = 5
LEAST_ROWS = 5  # of an answer that is drawn; the table has all
DRAWN_ANSWERS = 30
CLIPS_SHOWN = 3


@dataclass
class Sources:
    """Sources of a report's content, as `audiobert report` takes them."""

    results: Sequence[Path]  # of `evaluate --out`, those of span detectors included
    predictions: Sequence[Path] = ()
    data: Path | None = None  # the benchmark's folder, for its audit
    model: str | None = None  # the one that is looked at closely; by default the results' first AudioBERT
    bank: Path | None = None  # that the model's clips came from; by default its own
    examples: int = 20  # rows that are shown, half of them right
    without_recordings: str | None = None  # the model that was trained in the same way without recordings


@dataclass
class Report:
    """Content that the template shows; the figures can be saved as well."""

    values: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def make_report(sources: Sources) -> Report:
    """Read the sources and compute everything that the report shows; its notes name what is missing.

    InputError if a file is none of `evaluate`, or `model` is not in the results.
    """
    reports = read_results(sources.results)
    scored = [one for one in reports if one["results"]]
    lines = read_predictions(sources.predictions)
    focus = sources.model or _focus([one for one in scored if one["model"] != sources.without_recordings])
    if sources.model and sources.model not in [one["model"] for one in reports]:
        known = ", ".join(dict.fromkeys(str(one["model"]) for one in reports))
        raise InputError(f"the results have no model {sources.model!r}; give one of {known}")
    report = Report()
    table = accuracy_table(scored) if scored else None
    detectors = [one for one in reports if one.get("detection")]
    detection = detector_table(detectors) if detectors else None
    if detection is None:
        report.notes.append("Table II is missing: 'audiobert evaluate MODEL --detector --out detector.json' makes it.")
    model = _load(focus, sources.bank, report)
    bank = model.bank if model is not None else _open_bank(sources.bank, report)
    added = sound_adds(scored, focus, sources.without_recordings)
    report.values |= {
        "focus": focus,
        "created": provenance()["created"],
        "source": paper.SOURCE,
        "accuracy": as_text(table) if table else None,
        "detection": as_text(detection) if detection else None,
        "added": added,
        "without_recordings": sources.without_recordings,
        "tests": pairwise(scored),
        "titles": task_titles(scored),
        "headline": headline(table, focus, added) if table else [],
        "commands": commands(scored, detectors),
        "models": [made_of(one) for one in reports],
        "audit": _audit(sources.data, report),
    }
    if table:
        report.figures["accuracy"] = draw.table_figure(table)
    if detection:
        report.figures["detector_f1"] = draw.table_figure(detection)
    _look_closely(report, lines, focus, bank, sources)
    _run_model(report, model)
    report.values["notes"] = report.notes
    report.values["images"] = {name: draw.svg_address(figure) for name, figure in report.figures.items()}
    return report


def write_report(sources: Sources, out: Path, *, figures: Path | None = None) -> list[Path]:
    """Write the report, and with `figures` its figures as PDF and PNG into that folder; return the files."""
    template = environment().get_template("report.html")
    report = make_report(sources)
    css = (files("audiobert.web") / "templates" / "report.css").read_text(encoding="utf-8")
    write_text(out, template.render(css=css, **report.values))
    return [out, *(draw.write_figures(figures, report.figures) if figures else [])]


def _focus(reports: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the model to look at closely: the first AudioBERT as it is, else the first that is no control."""
    with_sound = [r for r in reports if r.get("kind") == "audiobert" and not str(r["model"]).endswith(tuple(STATES))]
    models = with_sound or [r for r in reports if not is_control(dict(r))] or list(reports)
    return str(models[0]["model"]) if models else None


def _load(name: str | None, bank: Path | None, report: Report) -> AudioBert | None:
    """Return the model for Figure 1 and retrieval, if it is an AudioBERT that can be loaded here."""
    if name is None:
        return None
    from audiobert.auditorybench.models import split_state
    from audiobert.pipeline import AudioBert

    base, state = split_state(name)
    if state.get("sound"):
        return None
    try:
        return AudioBert.from_pretrained(base, bank=bank, only_bank=bank is not None)
    except AudioBertError as error:
        report.notes.append(f"Figure 1 and retrieval by class are missing, as {name} cannot be loaded here: {error}.")
        return None


def _open_bank(folder: Path | None, report: Report) -> AudioBank | None:
    if folder is None:
        report.notes.append("Without a bank (--bank) the examples have no captions, and pitches are not known.")
        return None
    return AudioBank.open(folder)


# --- one model, closely ----------------------------------------------------------------------------------------------


def _look_closely(
    report: Report, lines: Sequence[Line], focus: str | None, bank: AudioBank | None, sources: Sources
) -> None:
    """Break down the focus model's predictions."""
    own = of_model(lines, focus) if focus else []
    report.values |= {"answers": {}, "pitch": {}, "calibration": None, "confusions": {}, "examples": []}
    report.values["image_of"] = {}
    if not own:
        report.notes.append(
            f"There are no predictions of {focus}: give --predictions for accuracy by animal and by pitch difference, "
            "calibration, confusions and examples."
        )
        return
    unheard = {key_of(line): line for line in of_model(lines, f"{focus}{UNHEARD}")}
    parts: dict[tuple[str, str], list[Line]] = {}
    for line in own:
        parts.setdefault((line["task"], line["split"]), []).append(line)
    pitch_of = _pitches_of_clips(own, bank)
    for (task, split), some in parts.items():
        name = f"{report.values['titles'].get(task, task)}, {split}"
        images = {"answers": f"by_answer_{task}_{split}", "pitch": f"by_pitch_{task}_{split}"}
        report.values["image_of"][name] = images
        report.values["confusions"][name] = confusions(some)
        groups = by_answer(some, unheard)
        report.values["answers"][name] = groups
        drawn = [group for group in groups if group.n >= LEAST_ROWS][:DRAWN_ANSWERS]
        if len(drawn) > 2:
            report.figures[images["answers"]] = draw.groups_figure(drawn)
        pitches = _pitches(task, split, some, pitch_of, sources.data)
        if pitches:
            report.values["pitch"][name] = by_pitch_difference(some, pitches, unheard)
            report.figures[images["pitch"]] = draw.groups_figure(report.values["pitch"][name])
    found = calibration(own)
    report.values["calibration"] = found
    if found:
        report.figures["calibration"] = draw.calibration_figure(found)
    else:
        report.notes.append("Calibration needs comparisons with two scores; the predictions hold none.")
    half = sources.examples // 2
    shown = examples(own, sources.examples - half, correct=True) + examples(own, half, correct=False)
    report.values["examples"] = [_example(line, unheard.get(key_of(line)), bank) for line in shown]


def _pitches_of_clips(lines: Sequence[Line], bank: AudioBank | None) -> dict[str, float | None]:
    """Return the measured pitch of the bank's clips that the predictions name."""
    if bank is None:
        return {}
    named = {clip for line in lines for clip in line.get("clips") or []}
    ids, pitches = bank.table["id"].to_pylist(), bank.table["pitch_hz"].to_pylist()
    return {clip: pitch for clip, pitch in zip(ids, pitches, strict=True) if clip in named}


def _pitches(
    task: str, split: str, lines: Sequence[Line], pitch_of: Mapping[str, float | None], data: Path | None
) -> dict[Key, tuple[float, float]]:
    """Return the two pitches of each comparison.

    They are those that the row was made from, where the benchmark's folder has them (`data/pitch/SPLIT.parquet`, which
    `audiobert construct` writes), else those of the clips that were retrieved.
    """
    source = data / "data" / task / f"{split}.parquet" if data else None
    if source is not None and source.is_file():
        import pyarrow.parquet as parquet

        table = parquet.read_table(source)
        if {"pitch1_hz", "pitch2_hz"} <= set(table.column_names):
            pairs = list(zip(table["pitch1_hz"].to_pylist(), table["pitch2_hz"].to_pylist(), strict=True))
            rows = [line for line in lines if line["row"] < len(pairs) and all(pairs[line["row"]])]
            return {key_of(line): pairs[line["row"]] for line in rows}
    retrieved = {key_of(line): retrieved_pitches(line, pitch_of) for line in lines if task != "animal"}
    return {key: pair for key, pair in retrieved.items() if pair is not None}


def _example(line: Line, unheard: Line | None, bank: AudioBank | None) -> dict[str, Any]:
    spans = line.get("spans") or []
    retrieved = [
        {"span": span["text"], "clips": [{"id": one, "caption": _caption(one, bank)} for one in clips[:CLIPS_SHOWN]]}
        for span, clips in zip(spans, clips_by_span(line), strict=False)
    ]
    cut = pieces(line["text"], [(span["start"], span["end"]) for span in spans])
    return {"line": line, "pieces": cut, "unheard": unheard, "retrieved": retrieved}


def _caption(clip_id: str, bank: AudioBank | None) -> str | None:
    """Return what the bank says of a clip; None for a clip of another bank."""
    if bank is None:
        return None
    try:
        clip = bank.clip(bank.find([clip_id])[0])
    except InputError:
        return None
    return clip.caption or clip.title or clip.label


def _run_model(report: Report, model: AudioBert | None) -> None:
    """Add Figure 1 and retrieval by class, which need the model itself."""
    report.values |= {"retrieval": [], "retrieval_top_k": TOP_K}
    if model is None:
        return
    report.figures["figure_1"] = draw.predictions_figure(model.fill_mask(list(FIGURE_1), top_k=FIGURE_1_WORDS))
    classes = retrieval_by_class(model)
    report.values["retrieval"] = classes
    if classes:
        report.figures["retrieval"] = draw.retrieval_figure(classes, TOP_K)
    else:
        report.notes.append("Retrieval by class is missing: the bank has no label with five clips or more.")


# --- the data ---------------------------------------------------------------------------------------------------------


def _audit(data: Path | None, report: Report) -> str | None:
    if data is None:
        report.notes.append("The audit of the data is missing: give the benchmark's folder with --data.")
        return None
    from audiobert.auditorybench.audit import audit
    from audiobert.auditorybench.audit_page import to_text

    found = audit(data, near_duplicates=find_spec("rapidfuzz") is not None)
    return to_text({**found, "folder": data.name})
