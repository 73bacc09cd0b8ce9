"""Read the text that training uses beside the benchmark: lines of general English and captions of sounds."""

from __future__ import annotations

import csv
import gzip
import zlib
from io import StringIO
from pathlib import Path

from audiobert.errors import InputError

GENERAL_TRAIN = "general_train.txt.gz"
GENERAL_TRAIN_2 = "general_train2.txt.gz"  # may be absent
GENERAL_EVAL = "general_eval.txt.gz"  # for measuring alone
CAPTIONS = "audiocaps_captions.csv.gz"
SOUND_LINES = "wordnet_sound_lines.txt"  # may be absent


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file, gzipped or not; InputError if it is missing or not in UTF-8."""
    return [line.strip() for line in _read(path, "a file with one sentence per line").split("\n") if line.strip()]


def read_general(folder: Path) -> tuple[list[str], list[Path]]:
    """Return the lines of general English to train on, and the files that they are from."""
    second = folder / GENERAL_TRAIN_2
    files = [folder / GENERAL_TRAIN, *([second] if second.exists() else [])]
    return [line for path in files for line in read_lines(path)], files


def read_captions(path: Path) -> list[str]:
    """Return the captions of AudioCaps' train part (a CSV, gzipped or not, with the columns `split` and `caption`).

    InputError if the file is missing, is not text in UTF-8, or lacks a column.
    """
    rows = csv.DictReader(StringIO(_read(path, "a CSV with the columns split and caption"), newline=""), restval="")
    if not {"split", "caption"} <= set(rows.fieldnames or ()):
        found = ", ".join(rows.fieldnames or ()) or "none"
        raise InputError(f"{path} has the columns {found}; the columns split and caption are wanted")
    return [row["caption"].strip() for row in rows if row["split"] == "train"]


def _read(path: Path, wanted: str) -> str:
    if not path.is_file():
        raise InputError(f"{path} does not exist; {wanted} is wanted")
    content = path.read_bytes()
    try:
        return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no text in UTF-8, gzipped or not ({error}); {wanted} is wanted") from None
