"""Decoding of sound files as they are found: silence first, channels in antiphase, constant offsets, cut files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobert.audio import MEASURED_SECONDS, SAMPLE_RATE_HZ, load_audio, measure_clip
from audiobert.decoding import AudioFileError, decode_samples

RATE_HZ = 22_050


def tone(seconds: float, frequency_hz: float = 440.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def write(path: Path, samples: np.ndarray) -> Path:
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", RATE_HZ, channels) as file:
        for start in range(0, len(samples), 8_192):
            file.write(samples[start : start + 8_192])
    return path


def without_length(flac: bytes) -> bytes:
    """A FLAC file as an encoder writes it to a pipe: the 36 bits of its number of samples are zero."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3", "ogg"])
def test_channels_in_antiphase_do_not_cancel(tmp_path: Path, extension: str) -> None:
    sound = tone(1.0)
    path = write(tmp_path / f"antiphase.{extension}", np.stack([sound, -sound], axis=1))

    attributes = measure_clip(path).attributes

    assert not attributes.silent and attributes.pitch_hz == pytest.approx(440, rel=0.01)
    assert attributes.loudness_dbfs == pytest.approx(-13.5, abs=0.3)
    assert np.abs(load_audio(path)).max() > 0.2


def test_channels_that_do_not_cancel_are_averaged(tmp_path: Path) -> None:
    one, other = tone(1.0, 440), tone(1.0, 700)
    path = write(tmp_path / "stereo.wav", np.stack([one, other], axis=1))
    np.testing.assert_allclose(decode_samples(path, "it").waveform, (one + other) / 2, atol=1e-4)

    path = write(tmp_path / "one-sided.wav", np.stack([one, 0 * one], axis=1))
    np.testing.assert_allclose(decode_samples(path, "it").waveform, one / 2, atol=1e-4)


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3", "ogg"])
@pytest.mark.parametrize("seconds", [11.0, 1.5 * MEASURED_SECONDS])
def test_silence_before_the_sound_is_skipped(tmp_path: Path, extension: str, seconds: float) -> None:
    path = write(tmp_path / f"late.{extension}", np.concatenate([silence(seconds), tone(2.0)]))

    clip = measure_clip(path, rates_hz=[SAMPLE_RATE_HZ], seconds=1.0)

    assert clip.attributes.pitch_hz == pytest.approx(440, rel=0.01) and clip.attributes.voiced_ratio > 0.8
    assert clip.attributes.duration_s == pytest.approx(seconds + 2.0, abs=0.1)  # MP3 pads to whole frames
    assert np.sqrt(np.square(clip.waveforms[SAMPLE_RATE_HZ][4_000:]).mean()) == pytest.approx(0.212, rel=0.1)


def test_a_short_pause_before_the_sound_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "pause.wav", np.concatenate([silence(0.15), tone(1.0)]))
    waveform = measure_clip(path, rates_hz=[SAMPLE_RATE_HZ]).waveforms[SAMPLE_RATE_HZ]
    np.testing.assert_allclose(waveform, load_audio(path), atol=1e-4)


@pytest.mark.parametrize("offset", [0.001, 0.5, -0.9])
def test_a_constant_offset_is_silence(tmp_path: Path, offset: float) -> None:
    attributes = measure_clip(write(tmp_path / "offset.wav", silence(2.0) + np.float32(offset))).attributes
    assert attributes.silent and attributes.pitch_hz is None and attributes.loudness_dbfs < -100


def test_a_constant_offset_changes_no_attribute(tmp_path: Path) -> None:
    plain = measure_clip(write(tmp_path / "plain.wav", tone(2.0))).attributes
    offset = measure_clip(write(tmp_path / "offset.wav", tone(2.0) + np.float32(0.2))).attributes
    assert offset.loudness_dbfs == pytest.approx(plain.loudness_dbfs, abs=0.01)
    assert offset.spectral_centroid_hz == pytest.approx(plain.spectral_centroid_hz, rel=0.01)
    assert offset.pitch_hz == pytest.approx(plain.pitch_hz, rel=0.001)


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3", "ogg"])
@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_an_incomplete_file_has_the_length_of_what_there_is(
    tmp_path: Path, extension: str, share: float, as_bytes: bool
) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 60 * RATE_HZ).astype(np.float32)  # of constant bit rate
    whole = write(tmp_path / f"whole.{extension}", noise).read_bytes()
    cut = whole[: round(share * len(whole))]
    (tmp_path / f"cut.{extension}").write_bytes(cut)

    clip = measure_clip(io.BytesIO(cut) if as_bytes else tmp_path / f"cut.{extension}", estimator="none")

    assert clip.attributes.duration_s == pytest.approx(60 * share, abs=2.0)
    assert clip.attributes.loudness_dbfs == pytest.approx(-16.8, abs=0.7)  # band-limited to 8 kHz


def test_flac_from_a_pipe_has_its_length_counted(tmp_path: Path) -> None:
    sound = tone(35.0)
    path = tmp_path / "pipe.flac"
    path.write_bytes(without_length(write(tmp_path / "whole.flac", sound).read_bytes()))
    assert soundfile.info(path).frames > 2**62

    assert measure_clip(path).attributes.duration_s == pytest.approx(35.0, abs=0.001)
    waveform = decode_samples(path, "it").waveform
    assert len(waveform) >= len(sound) - 1
    np.testing.assert_allclose(waveform, sound[: len(waveform)], atol=1e-4)
    assert len(decode_samples(path, "it", max_seconds=1.0).waveform) == RATE_HZ


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "MPEG-4"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "WebM"),
        (b"#!AMR\n", "AMR"),
    ],
)
def test_a_format_that_is_not_supported_is_named_with_what_to_do(
    tmp_path: Path, as_bytes: bool, start: bytes, kind: str
) -> None:
    path = tmp_path / "clip.bin"
    path.write_bytes(start + bytes(200))
    with pytest.raises(AudioFileError, match=f"^clip is .*{kind}.* not supported; convert it.*ffmpeg") as caught:
        decode_samples(io.BytesIO(path.read_bytes()) if as_bytes else path, "clip")
    assert caught.value.reason == "undecodable"


def test_a_clip_is_measured_the_same_whatever_its_encoders_need(tmp_path: Path) -> None:
    sound = np.concatenate([tone(6.0, 300), 0.1 * tone(6.0, 900), tone(38.0, 1_300)])
    path = write(tmp_path / "long.flac", sound)
    expected = measure_clip(path).attributes
    assert expected.duration_s == pytest.approx(50.0)

    for seconds, rates_hz in ((1.0, [SAMPLE_RATE_HZ]), (10.3, [SAMPLE_RATE_HZ, 48_000]), (45.0, [48_000])):
        clip = measure_clip(path, rates_hz=rates_hz, seconds=seconds)
        assert clip.attributes == expected
        assert {rate: len(waveform) for rate, waveform in clip.waveforms.items()} == {
            rate: round(seconds * rate) for rate in rates_hz
        }
    assert measure_clip(io.BytesIO(path.read_bytes())).attributes == expected
