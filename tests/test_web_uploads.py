"""What visitors may upload, what is said of the rest, and what a recording is used for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from audiobert.bank import AudioBank, build_bank
from web_server import FakeModel, ForeignEncoder, Running, ask, serve, tone, upload

pytest.importorskip("gradio")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bank, and a sound beside it."""
    folder = tmp_path_factory.mktemp("house")
    tone(folder / "sounds" / "low.wav", 220)
    tone(folder / "private.wav", 330)
    build_bank(folder / "sounds", folder / "bank", ForeignEncoder(), workers=0)
    return folder


@pytest.fixture(scope="module")
def demo(house: Path) -> Iterator[Running]:
    with serve(house) as demo:
        yield demo


def test_uploads_are_sounds_of_a_limited_size_and_stay_where_they_are_put(demo: Running, house: Path) -> None:
    from audiobert.web.uploads import MAX_UPLOAD_BYTES

    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    sound = (house / "private.wav").read_bytes()
    taken = upload(demo.url, sound, "../../../evil name.wav")
    assert taken.status_code == 200
    path = Path(taken.json()[0])
    assert path.resolve().is_relative_to(uploads.resolve()) and path.name == "sound.wav"
    assert httpx.get(f"{demo.url}/gradio_api/file={path}").content == sound  # the page shows what was uploaded
    assert upload(demo.url, b"<script>alert(1)</script>", "x.html").status_code == 415
    assert upload(demo.url, b"<script>alert(1)</script>", "x.wav").status_code == 415
    assert upload(demo.url, b"\0" * (MAX_UPLOAD_BYTES + 1), "x.wav").status_code == 413
    for name in ("tools.txt", "too large.txt", "too.wav"):  # a name does not decide what is said
        refused = upload(demo.url, b"no sound", name)
        assert refused.status_code == 415 and name in refused.text and "give a WAV" in refused.text
    assert len([path for path in uploads.rglob("*") if path.is_file()]) == 1


def test_an_upload_is_decoded_beside_the_event_loop(
    demo: Running, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiobert.web import uploads

    started, may_end = threading.Event(), threading.Event()
    decode = uploads.decode_samples

    def slow(*given: Any, **options: Any) -> Any:
        started.set()
        assert may_end.wait(30)
        return decode(*given, **options)

    monkeypatch.setattr(uploads, "decode_samples", slow)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(upload, demo.url, (house / "private.wav").read_bytes(), "x.wav")
        try:
            assert started.wait(30)
            assert httpx.get(f"{demo.url}/robots.txt", timeout=20).status_code < 500  # the page answers meanwhile
        finally:
            may_end.set()
        assert sent.result().status_code == 200


def test_a_recording_stands_for_words_of_the_sentence(house: Path, tmp_path: Path) -> None:
    model = FakeModel(AudioBank.open(house / "bank"))
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    with serve(house, model=model) as demo, httpx.Client(timeout=60) as client:
        bank = str(house / "bank")

        def asked(words: str, recording: str | None) -> str:
            return ask(demo.url, "This is a [MASK]", bank, client, words, recording)[1]

        mine = upload(demo.url, (house / "private.wav").read_bytes(), "mine.wav").json()[0]
        assert "cat" in asked(" This ", mine)
        assert list(model.sounds[-1]) == ["This"] and Path(model.sounds[-1]["This"]).read_bytes()[:4] == b"RIFF"
        assert "not the words that it stands for" in asked("", mine)
        assert "no recording is given for" in asked("This", None)
        silent = upload(demo.url, (tmp_path / "silence.wav").read_bytes(), "silence.wav").json()[0]
        said = asked("This", silent)
        assert "your recording: no sample reaches" in said and "sound.wav" not in said and "audiobert-demo" not in said


def test_old_uploads_are_removed_and_their_number_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audiobert.web import uploads as kept

    monkeypatch.setattr(kept, "KEPT_UPLOADS", 3)
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    paths = []
    for n in range(5):
        tone(tmp_path / "tone.wav", 100.0 * (n + 1), 0.1)
        paths.append(kept.keep_sound((tmp_path / "tone.wav").read_bytes(), "tone.wav", uploads))
        os.utime(paths[-1].parent, (time.time() - 60 + n, time.time() - 60 + n))
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    os.utime(paths[2].parent, (0, 0))
    kept.make_room(uploads)
    assert not paths[2].exists() and paths[4].exists()
