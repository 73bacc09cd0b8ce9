"""Decode an entry of a source to the features that the encoders take; runs in workers and imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from audiobert.audio import FRAME_LENGTH, SAMPLE_RATE_HZ, Attributes, measure_clip
from audiobert.bank.clips import measured_columns
from audiobert.bank.sources import Entry
from audiobert.decoding import SILENCE_DBFS, AudioFileError
from audiobert.features import Features, Makers, make_features, rates_hz, settings_of
from audiobert.pitch import Estimator


@dataclass(frozen=True)
class DecodeSettings:
    """Settings of decoding; a bank records them.

    `makers` make each model's features from a waveform, by role. Recordings longer than `max_duration_s` are rejected:
    their start does not stand for the whole.
    """

    makers: Makers
    max_duration_s: float = 1_800.0
    estimator: Estimator = "swiftf0"

    @property
    def seconds(self) -> float:
        """Return the length of sound that the encoders use at most, in seconds."""
        return max(maker.seconds for maker in self.makers.values())

    def settings(self) -> dict[str, Any]:
        """Return the settings that a bank records."""
        return {**settings_of(self.makers), "max_duration_s": self.max_duration_s, "estimator": self.estimator}


@dataclass
class DecodedClip:
    """Outcome of an entry: features with measurements, or the reason why not, or that it is unchanged."""

    sha256: str | None = None
    unchanged: bool = False
    problem: tuple[str, str] | None = None
    features: Features | None = None  # by role
    attributes: Attributes | None = None
    measured: dict[str, Any] | None = None


def decode_clip(entry: Entry, decoding: DecodeSettings, known_sha256: str | None = None) -> DecodedClip:
    """Hash, decode, measure and transform one clip; do nothing more where it has the hash of an earlier build."""
    if entry.problem:
        return DecodedClip(problem=entry.problem)
    try:
        file = entry.open()
    except IsADirectoryError:
        return DecodedClip(problem=("missing", f"{entry.file} is a folder"))
    except OSError as error:
        return DecodedClip(
            problem=("missing", f"{entry.file or entry.id} cannot be opened ({error.strerror or error})")
        )
    with file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        if sha256 == known_sha256:
            return DecodedClip(sha256, unchanged=True)
        file.seek(0)
        direct = entry.file if entry.span is None and entry.content is None else None
        try:
            clip = measure_clip(
                direct or file,
                rates_hz=rates_hz(decoding.makers),
                seconds=decoding.seconds,
                estimator=decoding.estimator,
                name=entry.id,
            )
        except AudioFileError as error:
            return DecodedClip(sha256, problem=(error.reason, str(error)))
    attributes = clip.attributes
    if problem := _unusable(attributes, decoding.max_duration_s):
        return DecodedClip(sha256, problem=problem)
    measured = measured_columns(
        attributes, sample_rate_hz=clip.native_sample_rate_hz, channels=clip.channels, content_sha256=sha256
    )
    return DecodedClip(sha256, False, None, make_features(decoding.makers, clip.waveforms), attributes, measured)


def _unusable(attributes: Attributes, max_duration_s: float) -> tuple[str, str] | None:
    if attributes.duration_s > max_duration_s:
        return "too-long", f"{attributes.duration_s:.0f} s is longer than {max_duration_s:.0f} s"
    if attributes.duration_s * SAMPLE_RATE_HZ < FRAME_LENGTH:
        return "too-short", f"{attributes.duration_s * 1000:.0f} ms is shorter than 25 ms"
    return ("silent", f"no sample reaches {SILENCE_DBFS:.0f} dBFS") if attributes.silent else None
