"""Run the whole construction, or one step of it, from one file of settings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ValidationError

from audiobert.artefacts import sha256_of
from audiobert.configs import find_config
from audiobert.construct.animal import AnimalSettings, make_animal_rows
from audiobert.construct.asking import Asker
from audiobert.construct.categorize import CategorizeSettings, categorize
from audiobert.construct.collection import CollectionSettings, read_collection
from audiobert.construct.labels import LabelFilter
from audiobert.construct.llm_settings import LlmSettings
from audiobert.construct.output import DATASET, write_dataset
from audiobert.construct.pitch import PitchSettings, make_pitch_rows
from audiobert.construct.prompts import load_prompt, prompt_labels
from audiobert.construct.records import (
    CANNOT_SAY,
    AnimalRow,
    CategorizedClip,
    PitchRow,
    Rejected,
    SourceClip,
    read_records,
    validation_message,
    write_records,
)
from audiobert.construct.review import ReviewSettings
from audiobert.construct.split import SplitSettings, make_splits
from audiobert.construct.store import Store
from audiobert.construct.wiki import WikiSettings, make_wiki_rows
from audiobert.construct.workspace import Made, StepReport, Workspace, disk_faults
from audiobert.errors import ArtefactError, InputError
from audiobert.settings import NO_YAML, Settings, suggestion
from audiobert.table_files import text_fault

STEPS = ("collect", "categorize", "animal", "pitch", "wiki", "split")


class ConstructionSettings(Settings):
    """Settings of a whole construction; paths are relative to the current folder."""

    name: str = "AuditoryBench"
    out: Path
    records: Literal["jsonl", "parquet"] = "jsonl"
    input: CollectionSettings
    llm: LlmSettings
    categorize: CategorizeSettings = CategorizeSettings()
    animal: AnimalSettings = AnimalSettings()
    pitch: PitchSettings = PitchSettings()
    wiki: WikiSettings = WikiSettings()
    split: SplitSettings = SplitSettings()
    review: ReviewSettings = ReviewSettings()


def schemas() -> dict[str, Any]:
    """Return the JSON schemas of the records, of the prompts' answers, and of the settings."""
    kinds: list[type[BaseModel]] = [SourceClip, CategorizedClip, AnimalRow, PitchRow, Rejected, ConstructionSettings]
    answers: list[type[BaseModel]] = [load_prompt(label).answer_kind for label in prompt_labels()]
    return {kind.__name__: kind.model_json_schema() for kind in kinds + answers}


def read_settings(path: str | Path, *, engine: str | None = None, limit: int | None = None) -> ConstructionSettings:
    """Read settings from a YAML file; options of the command line take precedence.

    Messages of faults quote no value, since one may be a secret in the wrong place.
    """
    path = find_config(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        fault = text_fault(value)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give the YAML file with the settings") from None
    except NO_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where} is not YAML; see 'audiobert config construct-example'") from None
    if fault:
        raise InputError(f"{path} holds a NUL or half a character (\\0, \\ud800 ...); take it out")
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a mapping of settings; see 'audiobert config construct-example'")
    if engine is not None and isinstance(value.get("llm"), dict):
        value["llm"]["engine"] = engine
    if limit is not None and isinstance(value.get("input"), dict):
        value["input"]["limit"] = limit
    try:
        return ConstructionSettings.model_validate(value)
    except ValidationError as error:
        for one in error.errors(include_input=False):
            if one["type"] == "extra_forbidden":
                key = tuple(map(str, one["loc"]))
                advice = suggestion(ConstructionSettings, key)
                raise InputError(f"{path}: unknown key '{'.'.join(key)}'; {advice}") from None
        raise InputError(f"{path}: {validation_message(error)}") from None


class Construction:
    """The steps on one workspace, in their order; each is skipped if nothing has changed. A context manager.

    `redo` and `overwrite` are those of `Workspace`.
    """

    def __init__(self, settings: ConstructionSettings, *, redo: bool = False, overwrite: bool = False) -> None:
        self.settings = settings
        for step in (settings.categorize, settings.animal, settings.pitch):
            load_prompt(step.prompt)  # report a wrong name before anything is asked
        with disk_faults(settings.out):
            self.workspace = Workspace(settings.out, settings.records, STEPS, redo=redo, overwrite=overwrite)
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        with disk_faults(self.settings.out), ExitStack() as opened:
            opened.enter_context(self.workspace.locked())
            self.store = opened.enter_context(Store(self.settings.out / "store.sqlite"))
            self._opened = opened.pop_all()
        self.asker = Asker(self.settings.llm, self.store)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def run(self, steps: Sequence[str] = STEPS) -> list[StepReport]:
        """Make the steps and return a report of each. Questions, requests and cost go to a file in `runs/`."""
        started = time.monotonic()
        reports: list[StepReport] = []
        with disk_faults(self.settings.out):
            try:
                for step in steps:
                    reports.append(getattr(self, step)())
            except BaseException:
                with suppress(OSError, ArtefactError):  # a full disk must not hide what came before it
                    self._write_report(reports, started)
                raise
            self._write_report(reports, started)
        return reports

    def _write_report(self, reports: Sequence[StepReport], started: float) -> None:
        self.workspace.write_run(
            {
                "seconds": round(time.monotonic() - started, 2),
                "engine": self.settings.llm.engine,
                "model": self.settings.llm.model,
                "answers_kept": len(self.store),
                **self.report(reports),
            }
        )

    def report(self, reports: Sequence[StepReport]) -> dict[str, Any]:
        """Return the steps with the traffic to the language model, for `--json`."""
        return {
            "out": str(self.settings.out),
            "language_model": self.asker.report(),
            "steps": [asdict(one) for one in reports],
        }

    def _asking(self, step: CategorizeSettings | AnimalSettings | PitchSettings) -> dict[str, Any]:
        """Return what the answers of a step depend on."""
        llm, prompt = self.settings.llm, load_prompt(step.prompt).model_dump(mode="json")
        own = step.model_dump(mode="json", exclude={"workers"})
        return {**own, "model": llm.model, "sampling": llm.sampling(), "prompt": prompt}

    def collect(self) -> StepReport:
        """Read the collection into `clips.jsonl`."""
        collection, out = self.settings.input, self.workspace.records("clips")

        def make(part: Path) -> Made:
            clips, rejected = read_collection(collection)
            write_records(part / out.name, clips, SourceClip)
            return {"clips": len(clips)}, rejected

        inputs = [collection.path] if collection.kind == "manifest" else []
        return self.workspace.step("collect", make, inputs, collection.model_dump(mode="json"), [out])

    def categorize(self) -> StepReport:
        """Ask for the category of every clip: `categories.jsonl`."""
        source, out = self.workspace.records("clips"), self.workspace.records("categories")
        settings = self.settings.categorize

        def make(part: Path) -> Made:
            clips, rejected = categorize(read_records(source, SourceClip), self.asker, settings)
            write_records(part / out.name, clips, CategorizedClip)
            roots = (clip.category.split("/")[0] for clip in clips)
            counts = Counter("cannot say" if root == CANNOT_SAY else root for root in roots)
            return dict(sorted(counts.items())), rejected

        return self.workspace.step("categorize", make, [source], self._asking(settings), [out])

    def animal(self) -> StepReport:
        """Ask for a question about every animal: `animal.jsonl`, and a sheet of the undecided answers."""
        source, out = self.workspace.records("categories"), self.workspace.records("animal")
        settings, sheet = self.settings.animal, self.workspace.sheet("labels_to_review")

        def make(part: Path) -> Made:
            labels = LabelFilter(settings.labels)
            rows, rejected = make_animal_rows(read_records(source, CategorizedClip), self.asker, settings, labels)
            write_records(part / out.name, rows, AnimalRow)
            labels.write_undecided(part / sheet)
            return {"rows": len(rows)}, rejected

        depends_on = self._asking(settings)
        if settings.labels is not None and settings.labels.is_file():
            depends_on["labels_sha256"] = sha256_of(settings.labels)
        return self.workspace.step("animal", make, [source], depends_on, [out], sheets=[sheet])

    def pitch(self) -> StepReport:
        """Draw, measure and ask about pairs: `pitch.jsonl`."""
        source, out = self.workspace.records("categories"), self.workspace.records("pitch")
        settings, root = self.settings.pitch, self.settings.input.audio_root

        def make(part: Path) -> Made:
            rows, rejected = make_pitch_rows(read_records(source, CategorizedClip), root, self.asker, settings)
            write_records(part / out.name, rows, PitchRow)
            return {"rows": len(rows)}, rejected

        return self.workspace.step("pitch", make, [source], self._asking(settings), [out])

    def wiki(self) -> StepReport:
        """Make the two Wikipedia sets: `wiki_animal.jsonl`, `wiki_pitch.jsonl`."""
        outputs = [self.workspace.records("wiki_animal"), self.workspace.records("wiki_pitch")]
        wiki = self.settings.wiki

        def make(part: Path) -> Made:
            animals, pitches, rejected = make_wiki_rows(wiki, self.workspace.folder / "wiki")
            write_records(part / outputs[0].name, animals, AnimalRow)
            write_records(part / outputs[1].name, pitches, PitchRow)
            return {"animal": len(animals), "pitch": len(pitches)}, rejected

        pages = [page for page in (wiki.animals, wiki.ranges) if isinstance(page, Path)]
        return self.workspace.step("wiki", make, pages, wiki.model_dump(mode="json", exclude={"timeout_s"}), outputs)

    def split(self) -> StepReport:
        """Clean, split and write the benchmark into `dataset/`."""
        animal, wiki_animal = self.workspace.records("animal"), self.workspace.records("wiki_animal")
        pitch, wiki_pitch = self.workspace.records("pitch"), self.workspace.records("wiki_pitch")
        settings, dataset = self.settings.split.model_dump(mode="json"), self.workspace.folder / DATASET

        def make(part: Path) -> Made:
            animals, wiki_animals = read_records(animal, AnimalRow), read_records(wiki_animal, AnimalRow)
            pitches, wiki_pitches = read_records(pitch, PitchRow), read_records(wiki_pitch, PitchRow)
            splits, rejected = make_splits(animals, pitches, wiki_animals, wiki_pitches, self.settings.split)
            if not splits.animal and not splits.pitch:
                raise InputError(f"no rows are left for {dataset}; rejected.jsonl says why")
            made_from = {**self.workspace.made_from(STEPS[:-1]), "split": {"settings": settings}}
            return write_dataset(part / DATASET, splits, name=self.settings.name, made_from=made_from), rejected

        inputs, outputs = [animal, pitch, wiki_animal, wiki_pitch], [dataset / "construction.json"]
        return self.workspace.step("split", make, inputs, {**settings, "name": self.settings.name}, outputs)
