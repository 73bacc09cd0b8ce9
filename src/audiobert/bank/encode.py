"""Encode the features of clips to their vectors, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from audiobert.audio import Attributes
from audiobert.bank.decode import DecodedClip
from audiobert.bank.journal import Record
from audiobert.bank.workers import Block
from audiobert.features import Features, Makers


class ClipEncoder(Protocol):
    """Encoder of clips and their names into vectors; `AudioBert.clip_encoder()` gives one."""

    clap_dim: int  # width of the CLAP vectors
    hidden_size: int  # width of the knowledge vectors
    text_dim: int  # width of the name vectors; 0: the bank stores none
    makers: Makers  # of each model's input features, by role; run where clips are decoded

    @property
    def precision(self) -> str:
        """`fp32` or `bf16`, the number format that the models compute in; a bank records another than `fp32`."""

    def identity(self) -> dict[str, Any]:
        """Return ids and SHA-256 of the models by role: `clap`, `audio_encoder`, `text_encoder` if there is one."""

    def encode(self, features: list[Features], attributes: list[Attributes]) -> tuple[np.ndarray, np.ndarray]:
        """Return CLAP vectors `(clips, clap_dim)` of unit norm and knowledge vectors `(clips, hidden_size)`."""

    def embed_names(self, names: Sequence[str]) -> np.ndarray:
        """Return the vectors of names, `(names, text_dim)` float32 of unit norm."""


def encode_block(block: Block, decoded: list[DecodedClip], encoder: ClipEncoder) -> list[Record]:
    """Encode the usable clips of a block as one batch; return one record per clip of the block."""
    records = [
        Record(task.entry.id, one.sha256, task.entry.given, one.problem, one.measured, one.unchanged)
        for task, one in zip(block, decoded, strict=True)
    ]
    usable = [record for record, one in zip(records, decoded, strict=True) if one.features is not None]
    if not usable:
        return records
    features = [one.features for one in decoded if one.features is not None]
    clap, knowledge = encoder.encode(features, [one.attributes for one in decoded if one.attributes is not None])
    expected = ((len(usable), encoder.clap_dim), (len(usable), encoder.hidden_size))
    if (clap.shape, knowledge.shape) != expected:
        raise ValueError(f"the encoder gave vectors of shapes {clap.shape} and {knowledge.shape}, not {expected}")
    for record, *vectors in zip(usable, clap.astype(np.float16), knowledge.astype(np.float16), strict=True):
        if all(np.isfinite(vector).all() for vector in vectors):
            record.clap_vector, record.knowledge_vector = vectors
        else:
            record.problem = ("not-finite", "the encoder gave vectors that are no numbers")
            record.measured = None
    return records


def embed(names: Sequence[str], encoder: ClipEncoder) -> np.ndarray:
    """Return the vectors of names, `(names, text_dim)` float16, checked."""
    vectors, expected = encoder.embed_names(names), (len(names), encoder.text_dim)
    if vectors.shape != expected:
        raise ValueError(f"the encoder gave name vectors of shape {vectors.shape}, not {expected}")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(f"the encoder gave a vector that is no numbers for {names[int(finite.argmin())]!r}")
    return vectors.astype(np.float16)
