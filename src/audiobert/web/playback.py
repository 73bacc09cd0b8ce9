"""Serve the sound and the picture of a clip, by its id: decoded and made anew, so that only sound leaves.

A clip is served only when its file lies inside the folder that the bank was built from (`OpenedBank.audio_path`). What
is sent is never the file itself but what was decoded from it, so a file that is no sound cannot be read through a bank.
"""

from __future__ import annotations

import io
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import soundfile

from audiobert.audio import load_audio, log_mel_spectrogram
from audiobert.errors import InputError, MissingExtraError
from audiobert.web.shelf import OpenedBank

PLAYED_SECONDS = 30.0
PICTURED_SECONDS = 10.24  # what AST encodes of a clip
PLAYED_RATES_HZ = (8_000, 48_000)  # rates between these are kept
KEPT_FILES = 128  # at most 30 s of 16 bit mono at 48 kHz each: 370 MB
_DYNAMIC_RANGE = 12.0  # nepers below the loudest that are drawn, 52 dB


class Playback:
    """Decoder of clips for a page, which keeps the last ones; InputError for a clip whose audio is not at hand."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="audiobert-playback-")
        self._lock = threading.Lock()  # one at a time: a hundred requests cost the memory of one
        self._kept: OrderedDict[tuple[str, str, str], Path] = OrderedDict()
        self._made = 0

    def close(self) -> None:
        """Remove the files."""
        self._temporary.cleanup()

    def sound(self, opened: OpenedBank, clip_id: str) -> Path:
        """Return a WAV file (16 bit, mono) of a clip's first 30 seconds."""
        return self._get(opened, clip_id, "wav")

    def picture(self, opened: OpenedBank, clip_id: str) -> Path:
        """Return a PNG file of a clip's mel spectrogram: time to the right, 20 Hz to 8 kHz upwards."""
        return self._get(opened, clip_id, "png")

    def _get(self, opened: OpenedBank, clip_id: str, kind: str) -> Path:
        key = (opened.key, clip_id, kind)
        with self._lock:
            if key in self._kept and self._kept[key].is_file():
                self._kept.move_to_end(key)
                return self._kept[key]
            path = opened.audio_path(opened.bank.clip(opened.bank.find([clip_id])[0]))
            if path is None:
                raise InputError(f"the audio of the clip {clip_id!r} is not at hand")
            content = wav_of(path) if kind == "wav" else spectrogram_png(path)
            file = Path(self._temporary.name) / f"{self._made}.{kind}"
            file.write_bytes(content)
            self._made += 1
            self._kept[key] = file
            while len(self._kept) > KEPT_FILES:
                self._kept.popitem(last=False)[1].unlink(missing_ok=True)
            return file


def wav_of(path: Path) -> bytes:
    """Return the first 30 seconds of a sound file as a WAV file, mono, at the file's own rate within 8 to 48 kHz."""
    try:
        native = soundfile.info(str(path)).samplerate
    except (soundfile.LibsndfileError, RuntimeError):
        native = PLAYED_RATES_HZ[0]  # load_audio says what is wrong with it
    rate = min(max(native, PLAYED_RATES_HZ[0]), PLAYED_RATES_HZ[1])
    waveform = load_audio(path, sample_rate_hz=rate, max_seconds=PLAYED_SECONDS, name="the clip")
    out = io.BytesIO()
    soundfile.write(out, np.clip(waveform, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def spectrogram_png(path: Path) -> bytes:
    """Return the mel spectrogram of a sound file's first 10.24 seconds as a PNG."""
    try:
        from matplotlib.image import imsave
    except ImportError:
        raise MissingExtraError("matplotlib", "web") from None
    waveform = load_audio(path, max_seconds=PICTURED_SECONDS, name="the clip")
    log_mel = log_mel_spectrogram(waveform)  # (frames, 128)
    top = float(log_mel.max())
    out = io.BytesIO()
    imsave(out, log_mel.T, origin="lower", cmap="magma", vmin=top - _DYNAMIC_RANGE, vmax=top, format="png")
    return out.getvalue()
