"""Read a dataset of the library `datasets`: by name, saved to disk, or in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from audiobert.bank.clips import given_columns
from audiobert.bank.sources.entry import Entry, Source
from audiobert.bank.sources.formats import format_problem
from audiobert.errors import InputError, needs
from audiobert.table_files import text_of

DATASETS_PREFIX = "datasets:"


def dataset_source(dataset: Any, name: str) -> Source:
    """Open one split of a dataset with a column of the type Audio."""
    library = _datasets()
    if not isinstance(dataset, library.Dataset | library.IterableDataset):
        kind = type(dataset).__name__
        raise InputError(f"{kind} is no source; give a path, 'datasets:NAME', or one split of a dataset")
    features = dataset.features or {}
    columns = [column for column, feature in features.items() if isinstance(feature, library.Audio)]
    if not columns:
        raise InputError(f"{name} has the columns {', '.join(features)}; none of them is of the type Audio")
    column = columns[0]
    undecoded = dataset.cast_column(column, library.Audio(decode=False))
    total = len(dataset) if isinstance(dataset, library.Dataset) else None

    def walk() -> Iterator[Entry]:
        for number, row in enumerate(undecoded):
            yield _entry(number, row, row.pop(column) or {})

    return Source(name, None, total, walk)


def named_dataset(text: str) -> Source:
    """Open `datasets:NAME[?split=train&name=CONFIG&streaming=1]`."""
    library = _datasets()
    name, _, query = text.removeprefix(DATASETS_PREFIX).partition("?")
    options = {key: values[-1] for key, values in parse_qs(query).items()}
    if not name or set(options) - {"split", "name", "streaming"}:
        raise InputError(f"{text!r} is not of the form datasets:NAME[?split=train&name=CONFIG&streaming=1]")
    try:
        dataset = library.load_dataset(
            name,
            options.get("name"),
            split=options.get("split", "train"),
            streaming=options.get("streaming", "0") not in ("0", "false"),
        )
    except (OSError, ValueError) as error:
        raise InputError(f"the dataset {name!r} cannot be opened ({str(error).splitlines()[0]})") from None
    return dataset_source(dataset, text)


def is_saved_dataset(folder: Path) -> bool:
    """Return whether a folder was written by `save_to_disk` of a dataset or of a DatasetDict."""
    one_split = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return one_split or (folder / "dataset_dict.json").is_file()


def saved_dataset(folder: Path) -> Source:
    """Open a folder written by `save_to_disk`."""
    library = _datasets()
    try:
        dataset = library.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{folder} cannot be read as a saved dataset ({reason}); save it again") from None
    if isinstance(dataset, library.DatasetDict):
        if len(dataset) != 1:
            choices = ", ".join(str(folder / split) for split in dataset)
            raise InputError(f"{folder} holds a dataset of {len(dataset)} splits; give one of them: {choices}")
        (dataset,) = dataset.values()
    return dataset_source(dataset, str(folder))


def _datasets() -> Any:
    with needs("datasets", "scale"):
        import datasets
    return datasets


def _entry(number: int, row: dict[str, Any], audio: dict[str, Any]) -> Entry:
    path, content = audio.get("path"), audio.get("bytes")
    identifier = text_of(row.get("id")) or f"{number:09d}"
    given = given_columns({**row, "path": row.get("path") or path})
    if content is None and (path is None or urlsplit(path).scheme):
        return Entry(identifier, given, problem=("missing", f"row {number} has no audio"))
    file = Path(str(path)) if content is None else None
    return Entry(identifier, given, file, content=content, problem=format_problem(str(path or "")))
