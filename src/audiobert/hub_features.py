"""What published audio models hear: AST, Whisper, the Wav2Vec2 family and CLAP, as `audiobert.features` wants it.

The feature extractor's own settings travel as JSON, so that a maker is small to send to a worker; the extractor itself
is built there on first use.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from audiobert.audio import MEL_BINS, SAMPLE_RATE_HZ
from audiobert.errors import InputError
from audiobert.features import FeatureMaker, LogMel

WAVEFORM_SECONDS = 10.0  # heard by models that set no limit themselves: as much as AST and CLAP hear at once
FUSED_CLAP_SECONDS = 60.0  # a fused CLAP looks at a clip as a whole; what lies behind this is not decoded
# Behind the last frame that holds sound Whisper's log-mel is constant; one such frame stands for all.
WHISPER_TAIL_FRAMES = 3


@dataclass(frozen=True)
class AstFeatures:
    """The frames of `ASTFeatureExtractor` before it pads: normalised log-mel energies `(frames, 128)`."""

    frames: int
    mean: float
    std: float
    normalise: bool = True
    rate_hz: int = SAMPLE_RATE_HZ

    @property
    def seconds(self) -> float:
        return LogMel(self.frames).seconds

    @property
    def padding(self) -> float:
        """What the extractor pads with: zero, before it normalises."""
        return -self.mean / (2.0 * self.std) if self.normalise else 0.0

    def settings(self) -> dict[str, Any]:
        return {"kind": "ast", "frames": self.frames, "mean": self.mean, "std": self.std, "normalise": self.normalise}

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        log_mel = LogMel(self.frames)(waveform)[: self.frames]
        return (log_mel - np.float32(self.mean)) / np.float32(2.0 * self.std) if self.normalise else log_mel


@dataclass(frozen=True)
class ExtractorFeatures:
    """Base of the makers that call a transformers feature extractor; `config` holds its settings as JSON."""

    config: str
    rate_hz: int
    seconds: float

    def settings(self) -> dict[str, Any]:
        return {"kind": type(self).__name__.removesuffix("Features").lower(), **json.loads(self.config)}

    @property
    def extractor(self) -> Any:
        return _extractor(self.config)

    def _heard(self, waveform: np.ndarray) -> np.ndarray:
        return waveform[: round(self.seconds * self.rate_hz)]


@dataclass(frozen=True)
class WhisperFeatures(ExtractorFeatures):
    """Whisper's log-mel energies `(frames, bins)` of the clip alone, plus a few frames of its constant padding."""

    @property
    def window_frames(self) -> int:
        """Frames of the window that the model is given: 3000 for the published ones."""
        return int(self.extractor.nb_max_frames)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        heard = self._heard(waveform)
        log_mel = self.extractor(heard, sampling_rate=self.rate_hz, return_tensors="np")["input_features"][0].T
        frames = -(-len(heard) // self.extractor.hop_length) + WHISPER_TAIL_FRAMES
        return np.ascontiguousarray(log_mel[:frames], dtype=np.float32)


@dataclass(frozen=True)
class WaveformFeatures(ExtractorFeatures):
    """The waveform `(samples,)` as the Wav2Vec2 family takes it, normalised where its extractor says so."""

    @property
    def masked(self) -> bool:
        """Whether the model was trained with an attention mask over its padding."""
        return bool(self.extractor.return_attention_mask)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        values = self.extractor(self._heard(waveform), sampling_rate=self.rate_hz, return_tensors="np")["input_values"]
        return np.asarray(values[0], dtype=np.float32)


@dataclass(frozen=True)
class ClapFeatures(ExtractorFeatures):
    """CLAP's mel energies: `(frames, bins)`, or, of a clip longer than a window for a fused CLAP, `(4 frames, bins)`.

    The four windows are the whole clip shrunk and one window each of its beginning, middle and end. The extractor draws
    windows at random; here the draw is the same for every clip and every run. A CLAP that is not fused hears the
    beginning of a clip, where the extractor would draw any window.
    """

    @property
    def fused(self) -> bool:
        return bool(self.extractor.truncation == "fusion")

    @property
    def window_frames(self) -> int:
        return int(self.extractor.nb_max_samples // self.extractor.hop_length + 1)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        before = np.random.get_state()  # the extractor draws from numpy's global state
        np.random.seed(0)
        try:
            extracted = self.extractor(self._heard(waveform), sampling_rate=self.rate_hz, return_tensors="np")
        finally:
            np.random.set_state(before)
        windows = np.asarray(extracted["input_features"][0], dtype=np.float32)  # (1 or 4, frames, bins)
        alike = len(windows) > 1 and all(np.array_equal(windows[0], other) for other in windows[1:])
        return windows[0] if alike else windows.reshape(-1, windows.shape[-1])


def maker_of(extractor: Any, name: str) -> FeatureMaker:
    """The maker for a transformers feature extractor.

    Raises
    ------
    InputError
        It is of no kind that is known, or hears another way than the published models.
    """
    kind = type(extractor).__name__
    settings = {
        key: value for key, value in extractor.to_dict().items() if not key.startswith(("mel_filters", "window"))
    }
    config, rate_hz = json.dumps(settings, sort_keys=True), int(extractor.sampling_rate)
    if kind == "ASTFeatureExtractor":
        if (extractor.num_mel_bins, rate_hz) != (MEL_BINS, SAMPLE_RATE_HZ):
            raise InputError(
                f"{name} hears {extractor.num_mel_bins} mel bins at {rate_hz} Hz; an Audio Spectrogram Transformer with"
                f" {MEL_BINS} at {SAMPLE_RATE_HZ} Hz is wanted"
            )
        return AstFeatures(extractor.max_length, extractor.mean, extractor.std, extractor.do_normalize)
    if kind == "WhisperFeatureExtractor":
        return WhisperFeatures(config, rate_hz, float(extractor.chunk_length))
    if kind == "Wav2Vec2FeatureExtractor":
        return WaveformFeatures(config, rate_hz, WAVEFORM_SECONDS)
    if kind == "ClapFeatureExtractor":
        fused = extractor.truncation == "fusion"
        return ClapFeatures(config, rate_hz, FUSED_CLAP_SECONDS if fused else float(extractor.max_length_s))
    raise InputError(
        f"{name} has a {kind}; an audio model with the feature extractor of AST, Whisper, Wav2Vec2 (HuBERT, WavLM,"
        " Data2VecAudio) or CLAP is wanted"
    )


@cache
def _extractor(config: str) -> Any:
    import transformers

    settings = json.loads(config)
    kind = settings.pop("feature_extractor_type")
    return getattr(transformers, kind)(**settings)
