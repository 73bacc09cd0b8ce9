"""Teach a model an unknown word with recordings: `python -m benchmarks.teach RECORDINGS`.

The recordings are named after a word that nobody has written about, a bank is built of them, and the same sentence is
answered before and after.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from audiobert.artefacts import provenance, write_json
from audiobert.auditorybench.kinds import is_withheld
from audiobert.cli import run

WORD = "blick"
SENTENCE = f"The sound of a {WORD} has a [MASK] pitch than the sound of a cello."
MOST = 3  # recordings


def answer(model: str, *options: str) -> list[str]:
    """Return the lines that `fill-mask` prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        status = run(["fill-mask", SENTENCE, "--model", model, "--top-k", "2", "--no-base", *options])
    if status:
        sys.exit(status)
    return printed.getvalue().strip().splitlines()


def main() -> None:
    """Print what the model answers before and after, and write it to `--out`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.teach", description=__doc__)
    parser.add_argument("recordings", type=Path, help="folder of recordings of one kind, which names the kind")
    parser.add_argument("--model", default="mini", help="mini or a model's folder")
    parser.add_argument("--out", type=Path, help="write the answers to this JSON file")
    given = parser.parse_args()
    found = sorted(path for path in given.recordings.iterdir() if path.is_file())[:MOST]
    if not found:
        sys.exit(f"{given.recordings} holds no recordings")
    with tempfile.TemporaryDirectory() as folder:
        recordings, bank = Path(folder, "recordings"), Path(folder, "my-bank")
        recordings.mkdir()
        for number, path in enumerate(found, start=1):
            shutil.copy(path, recordings / f"{WORD}-{number}{path.suffix}")
        before = answer(given.model)
        if status := run(["bank", "build", str(recordings), "--out", str(bank), "--model", given.model]):
            sys.exit(status)
        after = answer(given.model, "--bank", str(bank))
    print(*before, *after, sep="\n")
    if given.out:
        from audiobert import AudioBert

        made = provenance(artefacts={"model": AudioBert.from_pretrained(given.model).describe()})
        kind = given.recordings.name
        lines = {"recordings": len(found), "suffix": found[0].suffix, "before": before, "after": after}
        write_json(given.out, {"model": given.model, **made, "kind": kind, "withheld": is_withheld(kind), **lines})


if __name__ == "__main__":
    main()
