"""Building a bank with mini's own models against the plain loop over the same clips, in the same run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audiobert.audio import FRAME_LENGTH, HOP_LENGTH, SAMPLE_RATE_HZ, Attributes, load_audio, measure
from audiobert.bank import build_bank
from audiobert.bank.build import BATCH_SIZE
from audiobert.bank.workers import available_cores
from audiobert.clip_encoder import ModelClipEncoder
from audiobert.features import AUDIO_ENCODER, CLAP, make_features
from audiobert.loading import load_clip_encoder
from audiobert.pitch import Estimator
from benchmarks.bench_audio import some_clips
from benchmarks.measure import row

_CLIPS = 96
_PYIN_CLIPS = 10  # pYIN takes half a second for a second of sound


def run() -> Iterator[dict[str, Any]]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _measure(Path(folder))


def _measure(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield audio seconds per second of the whole build, and of each of its steps."""
    encoder = load_clip_encoder("mini")
    clips = some_clips(_CLIPS, folder)
    source = folder / "clips.csv"
    source.write_text("\n".join(["path", *map(str, clips)]))
    plain = _Plain(encoder)
    plain.hear(clips[:1])  # imports are lazy
    limit = encoder.makers[CLAP].seconds
    waveforms = [load_audio(path, max_seconds=limit) for path in clips]
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE_HZ

    wall, cpu = _timed(lambda: plain.hear(clips))
    steps = dict(plain.steps)
    some = waveforms[:: max(1, len(waveforms) // _PYIN_CLIPS)][:_PYIN_CLIPS]
    pyin = _timed(lambda: [measure(one, SAMPLE_RATE_HZ, estimator="pyin") for one in some])[1]
    pyin *= seconds / (sum(map(len, some)) / SAMPLE_RATE_HZ)

    def build(name: str, workers: int, precision: Any, estimator: Estimator) -> tuple[float, float]:
        encoder.precision = precision
        return _timed(lambda: build_bank(source, folder / name, encoder, workers=workers, estimator=estimator))

    note = f"librosa.load + ASTFeatureExtractor + mini's models one clip at a time; {len(clips)} clips, {seconds:.0f} s"
    for precision in ("fp32", "bf16"):
        ours = build(f"cpu-{precision}", 0, precision, "none")[1]
        yield row(f"bank build, {precision}, CPU time", seconds / ours, seconds / cpu, "audio s/CPU s", note)
    cores = available_cores()
    for precision in ("fp32", "bf16"):
        ours = build(f"wall-{precision}", cores, precision, "none")[0]
        name = f"bank build, {precision}, {cores} workers, wall"
        yield row(name, seconds / ours, seconds / wall, "audio s/s", f"as above, {cores} cores for both")
    split = _our_steps(clips, encoder, limit)
    for name, ours in split.items():
        yield row(f"bank build: {name}", seconds / ours, seconds / steps[name], "audio s/CPU s", "one process")
    with_pitch = f"as above, and librosa.pyin on {len(some)} of the clips, scaled"
    ours = build("pitch-cpu", 0, "fp32", "swiftf0")[1]
    name = "bank build with pitch (as shipped), fp32, CPU time"
    yield row(name, seconds / ours, seconds / (cpu + pyin), "audio s/CPU s", with_pitch)
    ours = build("pitch-wall", cores, "fp32", "swiftf0")[0]
    name = f"bank build with pitch (as shipped), {cores} workers, wall"
    yield row(name, seconds / ours, seconds / (wall + pyin), "audio s/s", with_pitch)


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of this process; those of worker processes are not in the second."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


class _Plain:
    """A loop as one writes it: load, extract features, run the models, a clip at a time."""

    def __init__(self, encoder: ModelClipEncoder) -> None:
        from transformers import ASTFeatureExtractor

        self._encoder = encoder
        maker: Any = encoder.makers[CLAP]
        self._seconds = maker.seconds
        self._extractor = ASTFeatureExtractor(max_length=maker.frames, do_normalize=False)
        self.steps = {"decode": 0.0, "features": 0.0, "encoder": 0.0}

    def hear(self, clips: list[Path]) -> None:
        import librosa

        self.steps = dict.fromkeys(self.steps, 0.0)
        for path in clips:
            times = [time.process_time()]
            waveform, _ = librosa.load(path, sr=SAMPLE_RATE_HZ, duration=self._seconds)
            times.append(time.process_time())
            features = np.asarray(self._extractor(waveform, sampling_rate=SAMPLE_RATE_HZ)["input_values"][0])
            frames = max(1, 1 + (len(waveform) - FRAME_LENGTH) // HOP_LENGTH)
            features = features[:frames]  # what it padded with is not for mini's models
            attributes = measure(waveform, SAMPLE_RATE_HZ, estimator="none")
            times.append(time.process_time())
            self._encoder.encode([{CLAP: features, AUDIO_ENCODER: features}], [attributes])
            times.append(time.process_time())
            for name, start, end in zip(self.steps, times, times[1:], strict=False):
                self.steps[name] += end - start


def _our_steps(clips: list[Path], encoder: ModelClipEncoder, limit: float) -> dict[str, float]:
    """CPU seconds of each step in one process, the encoder in bf16."""
    encoder.precision = "bf16"
    times = [time.process_time()]
    waveforms = [load_audio(path, max_seconds=limit) for path in clips]
    times.append(time.process_time())
    features = [make_features(encoder.makers, {SAMPLE_RATE_HZ: one}) for one in waveforms]
    attributes: list[Attributes] = [measure(one, SAMPLE_RATE_HZ, estimator="none") for one in waveforms]
    times.append(time.process_time())
    for start in range(0, len(clips), BATCH_SIZE):
        encoder.encode(features[start : start + BATCH_SIZE], attributes[start : start + BATCH_SIZE])
    times.append(time.process_time())
    return {"decode": times[1] - times[0], "features": times[2] - times[1], "encoder": times[3] - times[2]}
