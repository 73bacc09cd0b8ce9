"""Write the manifest of a published collection for `audiobert bank build`: `python examples/manifests.py KIND FOLDER`.

KIND is esc-50, fsd50k or clotho; FOLDER is the collection as its archives unpack. The manifest is FOLDER/clips.csv.
`docs/collections.md` says where the collections are published.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

COLUMNS = (
    *("path", "label", "caption", "title", "description", "tags"),
    *("author", "license", "url", "source", "freesound_id", "fold", "split"),
)


def rows_of(table: Path, encoding: str = "utf-8") -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file."""
    with table.open(encoding=encoding, newline="") as file:
        yield from csv.DictReader(file)


def esc_50(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the clips of ESC-50: its classes as labels, its folds."""
    for row in rows_of(folder / "meta" / "esc50.csv"):
        yield {
            "path": f"audio/{row['filename']}",
            "label": row["category"].replace("_", " "),
            "license": "CC BY-NC 3.0",
            "url": f"https://freesound.org/s/{row['src_file']}",
            "freesound_id": row["src_file"],
            "fold": row["fold"],
        }


def fsd50k(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the clips of FSD50K: the most specific class as label, title, description and tags of Freesound."""
    for part in ("dev", "eval"):
        known = json.loads((folder / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json").read_text(encoding="utf-8"))
        for row in rows_of(folder / "FSD50K.ground_truth" / f"{part}.csv"):
            about = known[row["fname"]]
            yield {
                "path": f"FSD50K.{part}_audio/{row['fname']}.wav",
                "label": row["labels"].split(",")[0].replace("_", " ").lower(),
                "title": about["title"],
                "description": about["description"],
                "tags": json.dumps(about["tags"]),
                "author": about["uploader"],
                "license": about["license"],
                "url": f"https://freesound.org/s/{row['fname']}",
                "freesound_id": row["fname"],
            }


def clotho(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the clips of Clotho: the first of five captions, the keywords as tags."""
    for part in ("development", "validation", "evaluation"):
        captions = {row["file_name"]: row["caption_1"] for row in rows_of(folder / f"clotho_captions_{part}.csv")}
        for row in rows_of(folder / f"clotho_metadata_{part}.csv", encoding="latin-1"):
            yield {
                "path": f"{part}/{row['file_name']}",
                "caption": captions[row["file_name"]],
                "tags": json.dumps(row["keywords"].split(";")),
                "author": row["manufacturer"],
                "license": row["license"],
                "url": row["sound_link"],
                "freesound_id": row["sound_id"],
            }


COLLECTIONS = {"esc-50": ("ESC-50", esc_50), "fsd50k": ("FSD50K", fsd50k), "clotho": ("Clotho", clotho)}


def main(arguments: list[str]) -> None:
    """Write the manifest and print how many clips it has."""
    if len(arguments) != 2 or arguments[0] not in COLLECTIONS:
        sys.exit(f"give KIND and FOLDER; KIND is one of {', '.join(COLLECTIONS)}")
    source, clips = COLLECTIONS[arguments[0]]
    folder = Path(arguments[1])
    try:
        found = [{"source": source, **row} for row in clips(folder)]
    except FileNotFoundError as error:
        sys.exit(f"{error.filename} does not exist; {folder} is not {source} as its archives unpack")
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(found)
    print(f"{folder / 'clips.csv'}: {len(found):,} clips")


if __name__ == "__main__":
    main(sys.argv[1:])
