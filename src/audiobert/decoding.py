"""Decode sound files with libsndfile: from a file to mono samples at its own rate, and its true duration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from audiobert.errors import InputError

SILENCE_DBFS = -80.0  # a level below this is silence
# Channels that are mixed cancel each other when less than this share of the energy of unrelated channels is left.
CANCELLED_SHARE = 0.1
# The mix is decided over so many seconds, whatever number of them a caller wants.
MIX_SECONDS = 30.0

# Long enough for one period of the lowest tone (20 Hz) to show its full height.
_BLOCK_SECONDS = 0.1
_SILENT_PEAK = 10 ** (SILENCE_DBFS / 20)
# libsndfile gives 2**63 - 1 frames when the header has no length (FLAC written to a pipe).
_UNKNOWN_FRAMES = 2**62
_FIRST_READ = 2**24  # frames that are read of a file whose length is wanted whole, before its header is trusted
_DAMAGED_BLOCK = 4_096  # frames that are read at once of a damaged file, at first
# First bytes (offset, bytes) of formats that libsndfile does not decode.
_UNSUPPORTED = (
    (4, b"ftyp", "MPEG-4 audio (AAC or ALAC)"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"\x30\x26\xb2\x75", "Windows Media"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"#!AMR", "AMR"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
)
_DECODING_ERRORS = (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError, OSError)


class AudioFileError(InputError):
    """A sound file that cannot be used; `reason` says in one word why (missing, undecodable, empty, not-finite)."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Samples:
    """Decoded samples of a sound file."""

    waveform: np.ndarray  # (samples,) float32, mono, at the file's rate
    sample_rate_hz: int
    channels: int  # of the file
    duration_s: float  # of the whole file, counted where its header is wrong


def decode_samples(
    source: str | Path | BinaryIO, name: str, *, max_seconds: float | None = None, skip_silence: bool = False
) -> Samples:
    """Decode the start of a sound file and mix its channels to one.

    A damaged or incomplete file gives the samples before the damage.

    Parameters
    ----------
    max_seconds
        Number of seconds to decode; all when None.
    skip_silence
        Start shortly before the first sound instead of at the start of the file. A constant offset is silence, too.
    """
    if isinstance(source, str | Path) and not Path(source).is_file():
        what = "is a folder" if Path(source).is_dir() else "does not exist"
        raise AudioFileError(f"{name} {what}; give the path of a sound file", "missing")
    try:
        with _open(source) as file:
            rate_hz, channels, promised = file.samplerate, file.channels, file.frames
        wanted = None if max_seconds is None else math.ceil(max_seconds * rate_hz)
        samples, ended = _read_sound(source, name, rate_hz, wanted) if skip_silence else _read(source, name, wanted)
        frames = ended if ended is not None else _true_frames(source, promised)
    except AudioFileError:
        raise
    except _DECODING_ERRORS as error:
        raise AudioFileError(_why_undecodable(source, name, error), "undecodable") from None
    if not len(samples):
        raise AudioFileError(f"{name} holds no samples; give a sound file that is not empty", "empty")
    return Samples(_mixed(samples, round(MIX_SECONDS * rate_hz)), rate_hz, channels, frames / rate_hz)


def _open(source: str | Path | BinaryIO) -> soundfile.SoundFile:
    if isinstance(source, str | Path):
        return soundfile.SoundFile(str(source))
    source.seek(0)
    return soundfile.SoundFile(source)


def _read_sound(
    source: str | Path | BinaryIO, name: str, rate_hz: int, wanted: int | None
) -> tuple[np.ndarray, int | None]:
    """Like `_read`, from at most one block before the first sound on; the last block of a silent file."""
    block = max(1, round(_BLOCK_SECONDS * rate_hz))
    length = wanted
    while True:
        samples, ended = _read(source, name, length)
        starts = range(0, len(samples), block)
        first = next((start for start in starts if not _is_silent(samples[start : start + block])), None)
        start = max(0, (len(samples) if first is None else first) - block)
        if ended is not None or length is None or wanted is None:
            return samples[start:][:wanted], ended
        if first is not None and length >= start + wanted:
            return samples[start:][:wanted], ended
        length = 2 * length if first is None else start + wanted


def _read(source: str | Path | BinaryIO, name: str, wanted: int | None) -> tuple[np.ndarray, int | None]:
    """Return the first samples `(samples, channels)`, and the number of frames of the file if its end was reached.

    All are read at once: soundfile seeks after each read, which is not exact in MP3.
    """
    length = wanted or 0
    while True:
        with _open(source) as file:
            length = length or min(file.frames, _FIRST_READ) + 1  # one more than there is: shows the end
            try:
                samples = file.read(length, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                samples = np.concatenate(list(_undamaged_blocks(source)))
        if not np.isfinite(samples).all():
            message = f"{name} holds samples that are no numbers (NaN or infinity); give an undamaged sound file"
            raise AudioFileError(message, "not-finite")
        if len(samples) < length:
            return samples, len(samples)
        if wanted is not None:
            return samples[:wanted], None
        length *= 4


def _undamaged_blocks(source: str | Path | BinaryIO) -> Iterator[np.ndarray]:
    """Yield what precedes the damage in a file, in ever smaller blocks before it; raise if that is nothing."""
    position, size = 0, _DAMAGED_BLOCK
    while size:
        with _open(source) as file:
            try:
                file.seek(position)
                while len(block := file.read(size, dtype="float32", always_2d=True)):
                    position += len(block)
                    yield block
                return
            except soundfile.LibsndfileError:
                size //= 2
                if not size and not position:
                    raise


def _true_frames(source: str | Path | BinaryIO, promised: int) -> int:
    """Return the promised number of frames if the last one can be decoded, else the number that can be."""
    with _open(source) as file:
        try:
            file.seek(promised - 1 if promised < _UNKNOWN_FRAMES else 0)
            if promised < _UNKNOWN_FRAMES and len(file.read(1)):
                return promised
        except soundfile.LibsndfileError:
            pass
    return sum(map(len, _undamaged_blocks(source)))


def _is_silent(block: np.ndarray) -> bool:
    return bool((np.ptp(block, axis=0) < 2 * _SILENT_PEAK).all())


def _mixed(samples: np.ndarray, decisive: int) -> np.ndarray:
    """Return the mean of the channels, or the loudest channel where they cancel each other (stereo in antiphase)."""
    channels = samples.shape[1]
    if channels == 1:
        return np.ascontiguousarray(samples[:, 0])
    mean = samples.mean(axis=1)
    power = samples[:decisive].var(axis=0, dtype=np.float64)  # (channels,)
    unrelated = power.sum() / channels**2
    if mean[:decisive].var(dtype=np.float64) < CANCELLED_SHARE * unrelated:
        return np.ascontiguousarray(samples[:, int(power.argmax())])
    return np.asarray(mean)


def _why_undecodable(source: str | Path | BinaryIO, name: str, error: Exception) -> str:
    if kind := _unsupported(source):
        return f"{name} is {kind}, which is not supported; convert it, for example to FLAC: ffmpeg -i FILE FILE.flac"
    reason = getattr(error, "error_string", None) or str(error)
    if "not a regular file" in reason:  # so libsndfile calls an MP3 that ends before its first frame
        reason = "it ends before any sound"
    return f"{name} cannot be decoded ({reason.strip().rstrip('.') or 'its data are damaged'}); give a sound file"


def _unsupported(source: str | Path | BinaryIO) -> str | None:
    try:
        if isinstance(source, str | Path):
            with Path(source).open("rb") as file:
                start = file.read(16)
        else:
            source.seek(0)
            start = source.read(16)
    except (OSError, ValueError):
        return None
    return next((kind for offset, magic, kind in _UNSUPPORTED if start.startswith(magic, offset)), None)
