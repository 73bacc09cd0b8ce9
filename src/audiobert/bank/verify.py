"""Compare a bank's files with its manifest, and its vectors with what they must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiobert.artefacts import sha256_of
from audiobert.bank.store import MANIFEST, VECTORS, manifest_checksum

_ROWS_AT_ONCE = 1 << 16
_NORM_TOLERANCE = 0.01  # float16 rounding moves a unit norm by less than 0.001


@dataclass(frozen=True)
class VerifyReport:
    """The result of `verify_bank`.

    Attributes
    ----------
    files
        Files whose size and SHA-256 were compared with the manifest.
    problems
        One line per damaged or missing file, or disagreement between files; empty when the bank is sound.
    """

    folder: str
    files: list[str]
    problems: list[str]

    @property
    def sound(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


def file_problems(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Compare size and SHA-256 of every file with the manifest; reads all of the bank."""
    if manifest.get("checksum") != manifest_checksum(manifest):
        yield f"{MANIFEST} was changed: it does not have its own checksum"
    for name, entry in manifest.get("files", {}).items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != entry.get("bytes"):
            yield f"{name} has {path.stat().st_size} bytes, the manifest says {entry.get('bytes')}"
        elif (found := sha256_of(path)) != entry.get("sha256"):
            yield f"{name} has SHA-256 {found[:12]}..., the manifest says {str(entry.get('sha256'))[:12]}..."


def vector_problems(name: str, vectors: np.ndarray, *, unit_norm: bool) -> Iterator[str]:
    """Check that vectors are finite and, if wanted, of unit norm."""
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = vectors[start : start + _ROWS_AT_ONCE].astype(np.float32)
        if not np.isfinite(block).all():
            yield f"{VECTORS}: {name} holds values that are no numbers"
            return
        if unit_norm and np.abs(np.linalg.norm(block, axis=1) - 1).max(initial=0) > _NORM_TOLERANCE:
            yield f"{VECTORS}: {name} are not of unit norm"
            return
