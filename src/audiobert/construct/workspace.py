"""Keep the folder of a construction: its files, and which steps have to be made (again).

A step writes its records, its rejected records, and `made/<step>.json` with what they were made from, all or none of
them. As long as that is unchanged the step is skipped. A file that a person has edited in between is kept, and the
later steps follow it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from audiobert import __version__
from audiobert.artefacts import check_folder, finish_write, library_versions, locked, read_json, sha256_of, write_json
from audiobert.construct.own_files import changed_files, check_unchanged, files_below, own_files
from audiobert.construct.records import Rejected, write_records
from audiobert.errors import ArtefactError, InputError

Made = tuple[dict[str, int], list[Rejected]]
"""What a step has kept, by name, and what it rejected."""

_ALL_REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class StepReport:
    """Outcome of a step: `state` is `made`, `unchanged` or `edited` (kept as a person left it); counts by name."""

    step: str
    state: str
    kept: dict[str, int]
    rejected: dict[str, int]


@contextmanager
def disk_faults(folder: Path) -> Iterator[None]:
    """Turn faults of the disk (full, not writable) into one line."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ArtefactError(
            f"{error.filename or folder} cannot be read or written ({reason}): make room on the disk or mend its "
            "permissions, and run the same command again; what was done is kept"
        ) from None


class Workspace:
    """The files of a construction under one folder; the steps, in their `order`, exchange records as JSONL or Parquet.

    With `redo`, steps are made again even if nothing has changed. With `overwrite`, also files are replaced that were
    edited by hand, or that a person has put where a step writes.
    """

    def __init__(
        self, folder: Path, records_format: str, order: Sequence[str], *, redo: bool = False, overwrite: bool = False
    ) -> None:
        self.folder, self.records_format, self.order = folder, records_format, order
        self.redo, self.overwrite = redo, overwrite
        check_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out, and finish what an interrupted one has left."""
        with locked(self.folder):
            finish_write(self.folder)
            yield

    def records(self, name: str) -> Path:
        """Return the path of a kind of records."""
        return self.folder / f"{name}.{self.records_format}"

    def sheet(self, name: str) -> str:
        """Return the file name of a sheet for a person: numbered on as long as one is filled in."""
        numbered = (f"{name}{f'_{number}' if number > 1 else ''}.csv" for number in count(1))
        return next(one for one in numbered if not changed_files(self.folder, [one]))

    def step(
        self,
        name: str,
        make: Callable[[Path], Made],
        inputs: Sequence[Path],
        settings: Mapping[str, Any],
        outputs: Sequence[Path],
        *,
        sheets: Sequence[str] = (),
    ) -> StepReport:
        """Make a step, which writes `outputs`, unless they are there, made from the same inputs by the same settings.

        It also writes `sheets` for a person to fill in, which are no part of what it made.
        """
        for path in inputs:
            if not path.is_file():
                raise InputError(
                    f"{path} does not exist; run the step that writes it first ('audiobert construct run')"
                )
        fingerprint = _fingerprint(name, inputs, settings)
        before = self._made(name)
        earlier = list(before["outputs"]) if before else []
        if before is not None and not self.redo and before["fingerprint"] == fingerprint:
            edited = changed_files(self.folder, earlier)
            if not (edited and self.overwrite) and all(output.is_file() for output in outputs):
                return StepReport(name, "edited" if edited else "unchanged", before["kept"], before["rejected"])
        if not self.overwrite:  # before anything is asked
            written = [path.relative_to(self.folder).as_posix() for path in outputs]
            own = [*earlier, *written, *sheets, f"rejected/{name}.jsonl", _ALL_REJECTED, f"made/{name}.json"]
            check_unchanged(self.folder, own)
        with own_files(self.folder, obsolete=earlier, overwrite=self.overwrite) as part:
            kept, rejected = make(part)
            reasons = dict(sorted(Counter(record.reason for record in rejected).items()))
            made = {
                "step": name,
                "fingerprint": fingerprint,
                "inputs": {path.name: sha256_of(path) for path in inputs},
                "settings": json.loads(_canonical(settings)),
                "outputs": {one: sha256_of(part / one) for one in files_below(part) if one not in sheets},
                "kept": kept,
                "rejected": reasons,
                "versions": library_versions(),
            }
            write_records(part / "rejected" / f"{name}.jsonl", rejected, Rejected)
            self._join_rejected(part)
            write_json(part / "made" / f"{name}.json", made)
        return StepReport(name, "made", kept, reasons)

    def _made(self, step: str) -> dict[str, Any] | None:
        """Return the record of a step, or None if it has not been made."""
        path = self.folder / "made" / f"{step}.json"
        value = read_json(path) if path.is_file() else None
        if value is not None and not (isinstance(value, dict) and {"fingerprint", "outputs"} <= set(value)):
            raise ArtefactError(f"{path} is not the record of a step; move it away")
        return value

    def _join_rejected(self, part: Path) -> None:
        """Write what all steps have left out, the new part of one step included."""
        with (part / _ALL_REJECTED).open("wb") as file:
            for step in self.order:
                for folder in (part, self.folder):
                    if (path := folder / "rejected" / f"{step}.jsonl").is_file():
                        file.write(path.read_bytes())
                        break

    def made_from(self, steps: Sequence[str]) -> dict[str, Any]:
        """Return settings and checksums of the steps that were made, for the JSON beside the benchmark."""
        names = ("inputs", "settings", "outputs", "kept", "rejected")
        return {step: {name: made[name] for name in names} for step in steps if (made := self._made(step))}

    def write_run(self, report: Mapping[str, Any]) -> None:
        """Write the report of a run, under a name of its own."""
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        write_json(self.folder / "runs" / f"{moment}.json", report)


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
