"""Decoding, resampling and the spectrogram."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobert.audio import (
    MEL_BINS,
    SAMPLE_RATE_HZ,
    load_audio,
    log_mel_spectrogram,
    measure,
    seconds_heard,
)
from audiobert.errors import InputError


def tone(frequency_hz: float, seconds: float, rate: int = SAMPLE_RATE_HZ, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 6)])
def test_load_audio_gives_mono_at_the_wanted_rate_whatever_the_file(
    tmp_path: Path, extension: str, rate: int, channels: int
) -> None:
    if extension == "mp3" and channels > 2:
        pytest.skip("MP3 has at most two channels")
    path = tmp_path / f"tone.{extension}"
    soundfile.write(path, np.repeat(tone(440, 1.0, rate)[:, None], channels, axis=1), rate)

    waveform = load_audio(path)

    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert abs(len(waveform) - SAMPLE_RATE_HZ) < 0.1 * SAMPLE_RATE_HZ  # MP3 pads to whole frames
    middle = waveform[4000:12000]
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 440 * len(middle) // SAMPLE_RATE_HZ
    assert np.sqrt((middle**2).mean()) == pytest.approx(
        0.5 / np.sqrt(2), rel=0.2
    )  # Vorbis low-passes the sixth channel


def test_opus_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tone.opus"
    soundfile.write(path, tone(440, 1.0, 48_000), 48_000, format="OGG", subtype="OPUS")
    assert abs(len(load_audio(path)) - SAMPLE_RATE_HZ) < 1000


def test_only_the_wanted_seconds_are_decoded_and_equal_the_start_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 44_100 * 3), 44_100, subtype="FLOAT")

    waveform = load_audio(path, max_seconds=1.0)

    assert len(waveform) == SAMPLE_RATE_HZ
    np.testing.assert_allclose(waveform, load_audio(path)[:SAMPLE_RATE_HZ], atol=1e-4)


def test_a_binary_file_is_read_like_a_path(tmp_path: Path) -> None:
    path = tmp_path / "tone.flac"
    soundfile.write(path, tone(440, 0.5), SAMPLE_RATE_HZ)
    np.testing.assert_array_equal(load_audio(io.BytesIO(path.read_bytes())), load_audio(path))


def write_nothing(path: Path) -> None:
    soundfile.write(path, np.zeros(0, dtype=np.float32), SAMPLE_RATE_HZ)


def write_not_a_number(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.nan, 0.2], dtype=np.float32), SAMPLE_RATE_HZ, subtype="FLOAT")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"this is text, not sound"), "cannot be decoded"),
        (lambda path: path.write_bytes(b""), "cannot be decoded"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda _: None, "does not exist"),
        (write_nothing, "holds no samples"),
        (write_not_a_number, "no numbers"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(tmp_path: Path, write: object, message: str) -> None:
    path = tmp_path / "clip.wav"
    write(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=message) as caught:
        load_audio(path)
    assert "clip.wav" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("samples", [400, 401, 559, 560, 16_000, 163_840])
def test_the_spectrogram_is_that_of_the_transformers_feature_extractor(samples: int) -> None:
    from transformers import ASTFeatureExtractor

    random = np.random.default_rng(samples)
    waveform = (0.2 * random.standard_normal(samples) + 0.01).astype(np.float32)  # with a direct current

    spectrogram = log_mel_spectrogram(waveform)

    extractor = ASTFeatureExtractor(do_normalize=False, max_length=len(spectrogram))
    expected = extractor(waveform, sampling_rate=SAMPLE_RATE_HZ)["input_values"][0]
    assert spectrogram.shape == (1 + (samples - 400) // 160, MEL_BINS) == expected.shape
    np.testing.assert_allclose(spectrogram, expected, atol=2e-3)


def test_the_spectrogram_of_real_clips_is_that_of_the_feature_extractor(shared: Path) -> None:
    from transformers import ASTFeatureExtractor

    for path in sorted((shared / "audio").rglob("*.ogg"))[::150]:
        waveform = load_audio(path, max_seconds=seconds_heard(1024))
        spectrogram = log_mel_spectrogram(waveform)
        extractor = ASTFeatureExtractor(do_normalize=False, max_length=len(spectrogram))
        expected = extractor(waveform, sampling_rate=SAMPLE_RATE_HZ)["input_values"][0]
        difference = np.abs(spectrogram - expected)
        # float32 against float64: seen only in bins eight orders of magnitude below the loudest
        assert difference.mean() < 1e-4 and difference.max() < 2e-2, path


def test_silence_and_very_short_sounds_have_a_spectrogram() -> None:
    np.testing.assert_allclose(
        log_mel_spectrogram(np.zeros(1600, np.float32)), np.log(1.192092955078125e-07), rtol=1e-6
    )
    assert log_mel_spectrogram(np.ones(3, np.float32)).shape == (1, MEL_BINS)


@pytest.mark.parametrize("shape", [(0,), (2, 400)])
def test_a_waveform_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="shape"):
        log_mel_spectrogram(np.zeros(shape))


def test_measured_attributes_of_a_tone_and_of_noise() -> None:
    a440 = measure(tone(440, 2.0), SAMPLE_RATE_HZ)
    assert a440.pitch_hz == pytest.approx(440, rel=0.01) and a440.voiced_ratio > 0.9
    assert a440.loudness_dbfs == pytest.approx(-9.03, abs=0.05) and a440.peak_dbfs == pytest.approx(-6.02, abs=0.05)
    assert a440.spectral_centroid_hz == pytest.approx(440, rel=0.05) and a440.spectral_flatness < 0.01
    assert a440.duration_s == 2.0 and not a440.silent

    noise = measure(np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32), SAMPLE_RATE_HZ)
    assert noise.pitch_hz is None and noise.spectral_flatness > 0.5
    assert noise.spectral_centroid_hz == pytest.approx(4000, rel=0.05)


def test_silence_has_attributes_too() -> None:
    silence = measure(np.zeros(800, np.float32), SAMPLE_RATE_HZ, duration_s=7.0)
    assert silence.silent and silence.pitch_hz is None and silence.loudness_dbfs == -120.0
    assert silence.duration_s == 7.0 and silence.spectral_centroid_hz == 0.0
