"""The folder of a construction: its files, and which steps have to be done (again).

A step leaves its records, its rejected records, and `made/<step>.json` with what they were made from. When that is
unchanged the step is skipped; a file that a person has edited in between is kept, and the later steps follow it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiobert import __version__
from audiobert.artefacts import library_versions, read_json, sha256_of, write_json, write_text
from audiobert.construct.records import Rejected, read_records, write_records
from audiobert.errors import InputError


@dataclass(frozen=True)
class StepReport:
    """What a step did: `state` is `made`, `unchanged` or `edited` (kept as a person left it); counts by name."""

    step: str
    state: str
    kept: dict[str, int]
    rejected: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"step": self.step, "state": self.state, "kept": self.kept, "rejected": self.rejected}


class Workspace:
    """The files of a construction under one folder.

    Parameters
    ----------
    folder
        Made when it does not exist.
    records_format
        `jsonl` or `parquet`: what the steps hand to each other.
    """

    def __init__(self, folder: str | Path, records_format: str = "jsonl") -> None:
        self.folder, self.records_format = Path(folder), records_format
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def store(self) -> Path:
        """Answers and measurements so far."""
        return self.folder / "store.sqlite"

    @property
    def dataset(self) -> Path:
        """The finished benchmark."""
        return self.folder / "dataset"

    def records(self, name: str) -> Path:
        """The file of a kind of records."""
        return self.folder / f"{name}.{self.records_format}"

    def rejected(self, step: str) -> Path:
        """What a step has left out."""
        return self.folder / "rejected" / f"{step}.jsonl"

    def _made(self, step: str) -> Path:
        return self.folder / "made" / f"{step}.json"

    def step(
        self,
        name: str,
        *,
        inputs: Sequence[Path],
        settings: Mapping[str, Any],
        outputs: Sequence[Path],
        make: Callable[[], tuple[dict[str, int], list[Rejected]]],
        redo: bool = False,
    ) -> StepReport:
        """Do a step unless its outputs are there and made from the same inputs by the same settings.

        Parameters
        ----------
        make
            Writes the outputs; returns counts of what was kept, and what was rejected.
        redo
            Do it in any case, also over a file that was edited by hand.

        Raises
        ------
        InputError
            When an input is missing, or an output was edited by hand and what it was made from has changed.
        """
        for path in inputs:
            if not path.is_file():
                raise InputError(
                    f"{path} does not exist; run the step that writes it first ('audiobert construct run')"
                )
        fingerprint = _fingerprint(name, inputs, settings)
        made = self._made(name)
        before = read_json(made) if made.is_file() and all(path.is_file() for path in outputs) else None
        if before is not None and not redo:
            edited = [path.name for path in outputs if sha256_of(path) != before["outputs"].get(path.name)]
            if before["fingerprint"] == fingerprint:
                return StepReport(name, "edited" if edited else "unchanged", before["kept"], before["rejected"])
            if edited:
                raise InputError(
                    f"{', '.join(edited)} in {self.folder} was edited by hand, and what it was made from has changed; "
                    f"move it away, or give --redo to step '{name}' to make it again"
                )
        made.unlink(missing_ok=True)
        kept, rejected = make()
        write_records(self.rejected(name), rejected, Rejected)
        reasons = dict(sorted(Counter(record.reason for record in rejected).items()))
        write_json(
            made,
            {
                "step": name,
                "fingerprint": fingerprint,
                "inputs": {path.name: sha256_of(path) for path in inputs},
                "settings": json.loads(_canonical(settings)),
                "outputs": {path.name: sha256_of(path) for path in outputs},
                "kept": kept,
                "rejected": reasons,
                "versions": library_versions(),
            },
        )
        self.join_rejected()
        return StepReport(name, "made", kept, reasons)

    def join_rejected(self) -> None:
        """Write `rejected.jsonl`: what all steps have left out."""
        order = ("collect", "categorize", "animal", "pitch", "wiki", "split")
        parts = [self.rejected(step).read_text(encoding="utf-8") for step in order if self.rejected(step).is_file()]
        write_text(self.folder / "rejected.jsonl", "".join(parts))

    def made_from(self, steps: Sequence[str]) -> dict[str, Any]:
        """Settings and checksums of the steps that were done, for the card and the JSON beside the benchmark."""
        found = {}
        for step in steps:
            if self._made(step).is_file():
                value = read_json(self._made(step))
                found[step] = {name: value[name] for name in ("inputs", "settings", "outputs", "kept", "rejected")}
        return found

    def read_rejected(self, step: str) -> list[Rejected]:
        """What a step has left out."""
        return read_records(self.rejected(step), Rejected)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _fingerprint(name: str, inputs: Sequence[Path], settings: Mapping[str, Any]) -> str:
    parts = {
        "step": name,
        "audiobert": __version__,
        "settings": settings,
        "inputs": [sha256_of(path) for path in inputs],
    }
    return hashlib.sha256(_canonical(parts).encode()).hexdigest()
