"""Run the whole construction, or one step of it, from one file of settings."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

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
    is_unicode,
    read_records,
    validation_message,
    write_records,
)
from audiobert.construct.review import ReviewSettings
from audiobert.construct.split import SplitSettings, make_splits
from audiobert.construct.store import Store
from audiobert.construct.wiki import WikiSettings, make_wiki_rows
from audiobert.construct.workspace import Make, StepReport, Workspace, disk_faults
from audiobert.errors import ArtefactError, InputError
from audiobert.settings import suggestion

STEPS = ("collect", "categorize", "animal", "pitch", "wiki", "split")


class ConstructionSettings(BaseModel):
    """Settings of a whole construction; paths are relative to the current folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    Raises
    ------
    InputError
        If the file is missing, is no YAML, or a setting is unknown or out of range. No value is quoted, since one may
        be a secret in the wrong place.
    """
    path = find_config(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        text = json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
        usable = is_unicode(text) and "\\u0000" not in text
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give the YAML file with the settings") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where} is not YAML; see 'audiobert config construct-example'") from None
    if not usable:
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

    Parameters
    ----------
    redo
        Make the steps again that are asked for.
    overwrite
        Also replace files that were edited by hand, or that a person has put where a step writes.
    """

    def __init__(self, settings: ConstructionSettings, *, redo: bool = False, overwrite: bool = False) -> None:
        self.settings, self.redo, self.overwrite = settings, redo, overwrite
        for step in (settings.categorize, settings.animal, settings.pitch):
            load_prompt(step.prompt)  # report a wrong name before anything is asked
        with disk_faults(settings.out):
            self.workspace = Workspace(settings.out, settings.records, STEPS)
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        with disk_faults(self.settings.out), ExitStack() as opened:
            opened.enter_context(self.workspace.locked())
            self.store = opened.enter_context(Store(self.workspace.store))
            self._opened = opened.pop_all()
        self.asker = Asker(self.settings.llm, self.store)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def run(self, steps: Sequence[str] = STEPS) -> list[StepReport]:
        """Make the steps and return a report of each. Questions, requests and cost go to a file in `runs/`.

        Raises
        ------
        InputError
            If an input is missing or wrong, or a file would be replaced that a person has changed or put there.
        ArtefactError
            If the disk is full or cannot be written.
        RemoteError
            If the language model fails for good; the answers so far are kept.
        """
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
            "steps": [one.to_json() for one in reports],
        }

    def _asking(self, prompt: str) -> dict[str, Any]:
        llm = self.settings.llm
        return {"model": llm.model, "sampling": llm.sampling(), "prompt": load_prompt(prompt).model_dump(mode="json")}

    def collect(self) -> StepReport:
        """Read the collection into `clips.jsonl`."""
        collection, out = self.settings.input, self.workspace.records("clips")

        def make(part: Path) -> tuple[dict[str, int], list[Rejected]]:
            clips, rejected = read_collection(collection)
            write_records(part / out.name, clips, SourceClip)
            return {"clips": len(clips)}, rejected

        inputs = [collection.path] if collection.kind == "manifest" else []
        return self._do("collect", inputs, collection.model_dump(mode="json"), [out], make)

    def categorize(self) -> StepReport:
        """Ask for the category of every clip: `categories.jsonl`."""
        source, out = self.workspace.records("clips"), self.workspace.records("categories")

        def make(part: Path) -> tuple[dict[str, int], list[Rejected]]:
            clips, rejected = categorize(read_records(source, SourceClip), self.asker, self.settings.categorize)
            write_records(part / out.name, clips, CategorizedClip)
            counts: dict[str, int] = {}
            for clip in clips:
                root = "cannot say" if clip.category == CANNOT_SAY else clip.category.split("/")[0]
                counts[root] = counts.get(root, 0) + 1
            return dict(sorted(counts.items())), rejected

        settings = {**self.settings.categorize.model_dump(mode="json"), **self._asking(self.settings.categorize.prompt)}
        return self._do("categorize", [source], settings, [out], make)

    def animal(self) -> StepReport:
        """Ask for a question about every animal: `animal.jsonl`, and a sheet of the undecided answers."""
        source, out = self.workspace.records("categories"), self.workspace.records("animal")
        labels_path, sheet = self.settings.animal.labels, self.workspace.sheet("labels_to_review")

        def make(part: Path) -> tuple[dict[str, int], list[Rejected]]:
            labels = LabelFilter(labels_path)
            rows, rejected = make_animal_rows(
                read_records(source, CategorizedClip), self.asker, self.settings.animal, labels
            )
            write_records(part / out.name, rows, AnimalRow)
            labels.write_undecided(part / sheet)
            return {"rows": len(rows)}, rejected

        settings = {**self.settings.animal.model_dump(mode="json"), **self._asking(self.settings.animal.prompt)}
        if labels_path is not None and labels_path.is_file():
            settings["labels_sha256"] = sha256_of(labels_path)
        return self._do("animal", [source], settings, [out], make, sheets=[sheet])

    def pitch(self) -> StepReport:
        """Draw, measure and ask about pairs: `pitch.jsonl`."""
        source, out = self.workspace.records("categories"), self.workspace.records("pitch")

        def make(part: Path) -> tuple[dict[str, int], list[Rejected]]:
            clips = read_records(source, CategorizedClip)
            root = self.settings.input.audio_root
            rows, rejected = make_pitch_rows(clips, root, self.asker, self.settings.pitch)
            write_records(part / out.name, rows, PitchRow)
            return {"rows": len(rows)}, rejected

        own = self.settings.pitch.model_dump(mode="json", exclude={"workers"})
        return self._do("pitch", [source], {**own, **self._asking(self.settings.pitch.prompt)}, [out], make)

    def wiki(self) -> StepReport:
        """Make the two Wikipedia sets: `wiki_animal.jsonl`, `wiki_pitch.jsonl`."""
        outputs = [self.workspace.records("wiki_animal"), self.workspace.records("wiki_pitch")]
        wiki = self.settings.wiki

        def make(part: Path) -> tuple[dict[str, int], list[Rejected]]:
            animals, pitches, rejected = make_wiki_rows(wiki, self.workspace.folder / "wiki")
            write_records(part / outputs[0].name, animals, AnimalRow)
            write_records(part / outputs[1].name, pitches, PitchRow)
            return {"animal": len(animals), "pitch": len(pitches)}, rejected

        pages = [page for page in (wiki.animals, wiki.ranges) if isinstance(page, Path)]
        return self._do("wiki", pages, wiki.model_dump(mode="json", exclude={"timeout_s"}), outputs, make)

    def split(self) -> StepReport:
        """Clean, split and write the benchmark into `dataset/`."""
        names = ("animal", "pitch", "wiki_animal", "wiki_pitch")
        inputs = [self.workspace.records(name) for name in names]
        dataset = self.workspace.folder / DATASET

        def make(part: Path) -> tuple[dict[str, int], list[Rejected]]:
            animal, pitch = read_records(inputs[0], AnimalRow), read_records(inputs[1], PitchRow)
            wiki_animal, wiki_pitch = read_records(inputs[2], AnimalRow), read_records(inputs[3], PitchRow)
            splits, rejected = make_splits(animal, pitch, wiki_animal, wiki_pitch, self.settings.split)
            if not splits.animal and not splits.pitch:
                raise InputError(f"no rows are left for {dataset}; rejected.jsonl says why")
            made_from = self.workspace.made_from(STEPS[:-1])
            made_from["split"] = {"settings": self.settings.split.model_dump(mode="json")}
            return write_dataset(part / DATASET, splits, name=self.settings.name, made_from=made_from), rejected

        settings = {**self.settings.split.model_dump(mode="json"), "name": self.settings.name}
        return self._do("split", inputs, settings, [dataset / "construction.json"], make)

    def _do(
        self,
        name: str,
        inputs: Sequence[Path],
        settings: dict[str, Any],
        outputs: Sequence[Path],
        make: Make,
        *,
        sheets: Sequence[str] = (),
    ) -> StepReport:
        return self.workspace.step(
            name,
            make,
            inputs=inputs,
            settings=settings,
            outputs=[path.relative_to(self.workspace.folder).as_posix() for path in outputs],
            sheets=sheets,
            redo=self.redo,
            overwrite=self.overwrite,
        )
