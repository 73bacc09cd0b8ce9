"""The whole construction from one file of settings, or one step of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from audiobert.artefacts import sha256_of, write_json
from audiobert.construct.animal import AnimalSettings, make_animal_rows
from audiobert.construct.asking import Asker
from audiobert.construct.categorize import CategorizeSettings, categorize
from audiobert.construct.collection import CollectionSettings, read_collection
from audiobert.construct.labels import LabelFilter
from audiobert.construct.llm_settings import LlmSettings
from audiobert.construct.output import write_dataset
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
from audiobert.construct.workspace import StepReport, Workspace
from audiobert.errors import InputError

STEPS = ("collect", "categorize", "animal", "pitch", "wiki", "split")


class ConstructionSettings(BaseModel):
    """Everything that a construction is made by; paths are relative to where the command is run."""

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
    """JSON schemas of what the steps read and write, of the prompts' answers, and of the settings."""
    kinds: list[type[BaseModel]] = [SourceClip, CategorizedClip, AnimalRow, PitchRow, Rejected, ConstructionSettings]
    answers: list[type[BaseModel]] = [load_prompt(label).answer_kind for label in prompt_labels()]
    return {kind.__name__: kind.model_json_schema() for kind in kinds + answers}


def read_settings(path: str | Path, *, engine: str | None = None, limit: int | None = None) -> ConstructionSettings:
    """Settings from a YAML file, with what the command line says on top.

    Raises
    ------
    InputError
        When the file is missing, is no YAML, or a setting is unknown or out of range; no value is quoted, since one may
        be a secret in the wrong place.
    """
    path = Path(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"no file {path}: give the YAML file with the settings, see configs/construct-example.yaml"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where} is not YAML; see configs/construct-example.yaml") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a mapping of settings; see configs/construct-example.yaml")
    if engine is not None and isinstance(value.get("llm"), dict):
        value["llm"]["engine"] = engine
    if limit is not None and isinstance(value.get("input"), dict):
        value["input"]["limit"] = limit
    try:
        return ConstructionSettings.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{path}: {validation_message(error)}") from None


class Construction:
    """The steps on one workspace, in their order; each skips itself when nothing has changed.

    Parameters
    ----------
    settings
        Of all steps.
    redo
        Make the steps that are asked for again, also over files that were edited by hand.
    """

    def __init__(self, settings: ConstructionSettings, *, redo: bool = False) -> None:
        self.settings, self.redo = settings, redo
        for step in (settings.categorize, settings.animal, settings.pitch):
            load_prompt(step.prompt)  # a wrong name is told before anything is asked
        self.workspace = Workspace(settings.out, settings.records)
        self.store = Store(self.workspace.store)
        self.asker = Asker(settings.llm, self.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()

    def run(self, steps: Sequence[str] = STEPS) -> list[StepReport]:
        """Do the steps; a report of each. What was asked, and how long it took, goes to `last_run.json`."""
        started = time.monotonic()
        reports: list[StepReport] = []
        try:
            for step in steps:
                reports.append(self._step(step)())
        finally:
            write_json(self.workspace.folder / "last_run.json", self._run_report(reports, time.monotonic() - started))
        return reports

    def _run_report(self, reports: Sequence[StepReport], seconds: float) -> dict[str, Any]:
        return {
            "seconds": round(seconds, 2),
            "engine": self.settings.llm.engine,
            "model": self.settings.llm.model,
            "language_model": self.asker.report(),
            "answers_kept": len(self.store),
            "steps": [report.to_json() for report in reports],
        }

    def report(self, reports: Sequence[StepReport]) -> dict[str, Any]:
        """The steps with the traffic to the language model, for `--json`."""
        return {
            "out": str(self.settings.out),
            "language_model": self.asker.report(),
            "steps": [one.to_json() for one in reports],
        }

    def _step(self, name: str) -> Callable[[], StepReport]:
        steps = {
            "collect": self.collect,
            "categorize": self.categorize,
            "animal": self.animal,
            "pitch": self.pitch,
            "wiki": self.wiki,
            "split": self.split,
        }
        return steps[name]

    def _asking(self, prompt: str) -> dict[str, Any]:
        llm = self.settings.llm
        return {"model": llm.model, "sampling": llm.sampling(), "prompt": load_prompt(prompt).model_dump(mode="json")}

    def collect(self) -> StepReport:
        """Read the collection into `clips.jsonl`."""
        collection, out = self.settings.input, self.workspace.records("clips")

        def make() -> tuple[dict[str, int], list[Rejected]]:
            clips = read_collection(collection)
            write_records(out, clips, SourceClip)
            return {"clips": len(clips)}, []

        inputs = [collection.path] if collection.kind == "manifest" else []
        return self._do("collect", inputs, collection.model_dump(mode="json"), [out], make)

    def categorize(self) -> StepReport:
        """Ask for the category of every clip: `categories.jsonl`."""
        source, out = self.workspace.records("clips"), self.workspace.records("categories")

        def make() -> tuple[dict[str, int], list[Rejected]]:
            clips, rejected = categorize(read_records(source, SourceClip), self.asker, self.settings.categorize)
            write_records(out, clips, CategorizedClip)
            counts: dict[str, int] = {}
            for clip in clips:
                root = "cannot say" if clip.category == CANNOT_SAY else clip.category.split("/")[0]
                counts[root] = counts.get(root, 0) + 1
            return dict(sorted(counts.items())), rejected

        settings = {**self.settings.categorize.model_dump(mode="json"), **self._asking(self.settings.categorize.prompt)}
        return self._do("categorize", [source], settings, [out], make)

    def animal(self) -> StepReport:
        """Ask for a question about every animal: `animal.jsonl`, and `labels_to_review.csv` for undecided answers."""
        source, out = self.workspace.records("categories"), self.workspace.records("animal")
        labels_path = self.settings.animal.labels

        def make() -> tuple[dict[str, int], list[Rejected]]:
            labels = LabelFilter(labels_path)
            rows, rejected = make_animal_rows(
                read_records(source, CategorizedClip), self.asker, self.settings.animal, labels
            )
            write_records(out, rows, AnimalRow)
            labels.write_undecided(self.workspace.folder / "labels_to_review.csv")
            return {"rows": len(rows)}, rejected

        settings = {**self.settings.animal.model_dump(mode="json"), **self._asking(self.settings.animal.prompt)}
        if labels_path is not None and labels_path.is_file():
            settings["labels_sha256"] = sha256_of(labels_path)
        return self._do("animal", [source], settings, [out], make)

    def pitch(self) -> StepReport:
        """Draw, measure and ask about pairs: `pitch.jsonl`."""
        source, out = self.workspace.records("categories"), self.workspace.records("pitch")

        def make() -> tuple[dict[str, int], list[Rejected]]:
            clips = read_records(source, CategorizedClip)
            root = self.settings.input.audio_root
            rows, rejected = make_pitch_rows(clips, root, self.asker, self.settings.pitch)
            write_records(out, rows, PitchRow)
            return {"rows": len(rows)}, rejected

        own = self.settings.pitch.model_dump(mode="json", exclude={"workers"})
        return self._do("pitch", [source], {**own, **self._asking(self.settings.pitch.prompt)}, [out], make)

    def wiki(self) -> StepReport:
        """Make the two Wikipedia sets: `wiki_animal.jsonl`, `wiki_pitch.jsonl`."""
        outputs = [self.workspace.records("wiki_animal"), self.workspace.records("wiki_pitch")]
        wiki = self.settings.wiki

        def make() -> tuple[dict[str, int], list[Rejected]]:
            animals, pitches, rejected = make_wiki_rows(wiki, self.workspace.folder / "wiki")
            write_records(outputs[0], animals, AnimalRow)
            write_records(outputs[1], pitches, PitchRow)
            return {"animal": len(animals), "pitch": len(pitches)}, rejected

        pages = [page for page in (wiki.animals, wiki.ranges) if isinstance(page, Path)]
        return self._do("wiki", pages, wiki.model_dump(mode="json", exclude={"timeout_s"}), outputs, make)

    def split(self) -> StepReport:
        """Clean, split and write the benchmark into `dataset/`."""
        names = ("animal", "pitch", "wiki_animal", "wiki_pitch")
        inputs = [self.workspace.records(name) for name in names]
        marker = self.workspace.dataset / "construction.json"

        def make() -> tuple[dict[str, int], list[Rejected]]:
            animal, pitch = read_records(inputs[0], AnimalRow), read_records(inputs[1], PitchRow)
            wiki_animal, wiki_pitch = read_records(inputs[2], AnimalRow), read_records(inputs[3], PitchRow)
            splits, rejected = make_splits(animal, pitch, wiki_animal, wiki_pitch, self.settings.split)
            if not splits.animal and not splits.pitch:
                raise InputError(f"no rows are left for {self.workspace.dataset}; rejected.jsonl says why")
            made_from = self.workspace.made_from(STEPS[:-1])
            made_from["split"] = {"settings": self.settings.split.model_dump(mode="json")}
            counts = write_dataset(self.workspace.dataset, splits, name=self.settings.name, made_from=made_from)
            return counts, rejected

        settings = {**self.settings.split.model_dump(mode="json"), "name": self.settings.name}
        return self._do("split", inputs, settings, [marker], make)

    def _do(
        self,
        name: str,
        inputs: Sequence[Path],
        settings: dict[str, Any],
        outputs: Sequence[Path],
        make: Callable[[], tuple[dict[str, int], list[Rejected]]],
    ) -> StepReport:
        return self.workspace.step(name, inputs=inputs, settings=settings, outputs=outputs, make=make, redo=self.redo)
