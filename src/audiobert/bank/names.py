"""The texts that a bank's clips are known by, and which clip has which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from audiobert.bank.clips import NAME_COLUMNS, known_as


@dataclass(frozen=True)
class ClipNames:
    """The distinct texts that clips are known by.

    Attributes
    ----------
    texts
        Distinct texts that are not empty, in order of first occurrence.
    rows
        `(clips,)` int32, index of each clip's text in `texts`; -1 where a clip has none.
    """

    texts: pa.LargeStringArray
    rows: np.ndarray


def clip_names(table: Iterable[pa.RecordBatch]) -> ClipNames:
    """Collect the texts that the clips of a table are known by; see `known_as`.

    The texts stay in Arrow's compact memory, because a bank may have several hundred thousand.
    """
    chunks = []
    for batch in table:
        columns = batch.select([name for name in NAME_COLUMNS if name in batch.schema.names])
        chunks.append(pa.array([known_as(row) or None for row in columns.to_pylist()], pa.large_string()))
    encoded = pa.chunked_array(chunks, pa.large_string()).dictionary_encode().combine_chunks()
    return ClipNames(encoded.dictionary, encoded.indices.fill_null(-1).to_numpy().astype(np.int32))
