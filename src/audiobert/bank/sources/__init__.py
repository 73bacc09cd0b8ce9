"""Open what clips come from: a folder, a manifest, WebDataset shards, or a `datasets` dataset; read as a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiobert.bank.sources.dataset import (
    DATASETS_PREFIX,
    dataset_source,
    is_saved_dataset,
    named_dataset,
    saved_dataset,
)
from audiobert.bank.sources.entry import Entry, Source
from audiobert.bank.sources.folder import folder_entries, list_folder
from audiobert.bank.sources.formats import AUDIO_EXTENSIONS, is_shard
from audiobert.bank.sources.manifest import manifest_source, read_ids
from audiobert.bank.sources.shard import shard_entries
from audiobert.errors import InputError
from audiobert.table_files import TABLE_EXTENSIONS, text_fault

__all__ = ["AUDIO_EXTENSIONS", "Entry", "Source", "open_source", "read_ids"]


def open_source(source: Any) -> Source:
    """Open whatever a bank can be built from.

    Parameters
    ----------
    source
        A folder of sound files and `.tar` shards; a shard; a CSV, TSV, JSONL or Parquet manifest with a `path` column
        (relative to the manifest); a folder written by `save_to_disk` of a dataset with one split; the text
        `datasets:NAME[?split=train&name=CONFIG&streaming=1]`; a `datasets` dataset; or a source that is open already.

    Raises
    ------
    InputError
        When there is no such source, or a manifest has no `path` column.
    """
    if isinstance(source, Source):
        return source
    if not isinstance(source, str | Path):
        return dataset_source(source, "datasets")
    if str(source).startswith(DATASETS_PREFIX):
        return named_dataset(str(source))
    path = Path(source)
    if fault := text_fault(str(path)):
        raise InputError(f"the path {str(path)!a} has {fault}; rename it")
    if path.is_dir():
        return saved_dataset(path) if is_saved_dataset(path) else _folder_source(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a folder with sound files, a manifest, or .tar shards")
    if is_shard(path.name):
        return Source(str(path), path.parent, None, lambda: shard_entries(path, path.parent))
    if path.suffix.lower() in TABLE_EXTENSIONS:
        return manifest_source(path)
    wanted = ", ".join(sorted(TABLE_EXTENSIONS))
    raise InputError(f"{path} is no folder, no .tar shard and no manifest ({wanted}); give one of these")


def _folder_source(path: Path) -> Source:
    found = list_folder(path)
    if not found:
        raise InputError(f"{path} is an empty folder; give a folder with sound files or a manifest")
    if found[0].path == path:
        raise InputError(f"{found[0].problem[1] if found[0].problem else path}; give a folder that can be read")
    has_shards = any(is_shard(one.path.name) for one in found)
    return Source(str(path), path, None if has_shards else len(found), lambda: folder_entries(path, found))
