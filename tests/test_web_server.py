"""What the demo's server gives to whoever asks: clips of its banks and nothing else, however many ask at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from audiobert.bank import AudioBank, build_bank
from audiobert.errors import InputError
from web_server import FakeModel, ForeignEncoder, Running, ask, serve, tone

pytest.importorskip("gradio")
SECRET = "root:x:0:0:secret"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sounds, and beside it what must not be read: a text, and a sound of somebody else."""
    folder = tmp_path_factory.mktemp("house")
    tone(folder / "sounds" / "low.wav", 220)
    tone(folder / "sounds" / "high one.wav", 880)
    tone(folder / "private.wav", 330)
    tone(folder / "sounds" / "swapped.wav", 500)
    tone(folder / "sounds" / "linked.wav", 600)
    (folder / "secret.txt").write_text(SECRET)
    build_bank(folder / "sounds", folder / "bank", ForeignEncoder(), workers=0)
    # After the build one file is exchanged for a text and one for a link to a sound outside.
    (folder / "sounds" / "swapped.wav").write_text(SECRET)
    (folder / "sounds" / "linked.wav").unlink()
    (folder / "sounds" / "linked.wav").symlink_to(folder / "private.wav")
    # A bank by somebody else, whose clips claim to lie outside the folder.
    manifest = folder / "sounds" / "evil.csv"
    manifest.write_text(f"id,path\nup,../private.wav\nabsolute,{folder / 'private.wav'}\nfine,low.wav\n")
    build_bank(manifest, folder / "evil-bank", ForeignEncoder(), workers=0)
    return folder


@pytest.fixture(scope="module")
def demo(house: Path) -> Iterator[Running]:
    with serve(house) as demo:
        yield demo


def test_a_clip_is_served_by_its_id(demo: Running) -> None:
    for name in ("low.wav", "high one.wav"):
        sound = httpx.get(f"{demo.url}/clips/sound", params={"bank": "bank-0", "id": name})
        assert sound.status_code == 200 and sound.headers["content-type"] == "audio/wav"
        assert sound.content[:4] == b"RIFF" and sound.headers["x-content-type-options"] == "nosniff"
        picture = httpx.get(f"{demo.url}/clips/picture", params={"bank": "bank-0", "id": name})
        assert picture.status_code == 200 and picture.content[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_player_can_ask_for_a_piece_of_a_clip(demo: Running) -> None:
    whole = httpx.get(f"{demo.url}/clips/sound?bank=bank-0&id=low.wav").content
    part = httpx.get(f"{demo.url}/clips/sound?bank=bank-0&id=low.wav", headers={"Range": "bytes=1000-1999"})
    assert part.status_code == 206 and part.content == whole[1000:2000]


@pytest.mark.parametrize("kind", ["sound", "picture"])
@pytest.mark.parametrize(
    "query",
    [
        "bank=bank-0&id=../secret.txt",
        "bank=bank-0&id=..%2Fsecret.txt",
        "bank=bank-0&id=..%252Fsecret.txt",
        "bank=bank-0&id=..%2Fprivate.wav",
        "bank=bank-0&id=/etc/passwd",
        "bank=bank-0&id=%2Fetc%2Fpasswd",
        "bank=bank-0&id=file:///etc/passwd",
        "bank=bank-0&id=low.wav%00.txt",
        "bank=bank-0&id=",
        "bank=../bank&id=low.wav",
        "bank=/&id=etc/passwd",
        "bank=bank-0&id=swapped.wav",  # a text in the place of a sound
        "bank=bank-0&id=linked.wav",  # a link that leads outside
        "bank=bank-1&id=up",  # a clip that claims to lie outside
        "bank=bank-1&id=absolute",
    ],
)
def test_nothing_outside_the_bank_is_served(demo: Running, kind: str, query: str) -> None:
    answer = httpx.get(f"{demo.url}/clips/{kind}?{query}")
    assert answer.status_code == 404
    assert "root:" not in answer.text and "private" not in answer.text


def test_a_clip_of_the_same_bank_that_lies_inside_is_served(demo: Running) -> None:
    assert httpx.get(f"{demo.url}/clips/sound?bank=bank-1&id=fine").status_code == 200


def raw_get(url: str, path: str) -> tuple[int, str]:
    """A GET whose path is sent as it is, dots and all."""
    import http.client

    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.putrequest("GET", path, skip_host=False)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/clips/../../secret.txt",
        "/clips/sound/../../../etc/passwd",
        "/gradio_api/file={secret}",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file={uploads}/../../../../../../etc/passwd",
        "/gradio_api/file=..%2F..%2Fetc%2Fpasswd",
        "/gradio_api/file=./pyproject.toml",
        "/gradio_api/file=http://127.0.0.1:1/x",
        "/gradio_api/file=https://example.invalid/x.wav",
        "/gradio_api/file=//example.invalid/x.wav",
        "/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/static/../../../../../../../etc/passwd",
        "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets//etc/passwd",
        "/gradio_api/proxy=http://example.invalid/",
        "/proxy=http://example.invalid/",
        "/custom_component/x/client/component/../../../../etc/passwd",
        "/gradio_api/runs",
        "/gradio_api/run-history/buckets",
        "/gradio_api/deep_link",
        "/monitoring",
        "/docs",
        "/openapi.json",
        "/login",
    ],
)
def test_no_other_route_reads_files_or_fetches(demo: Running, house: Path, path: str) -> None:
    import os

    path = path.format(secret=house / "secret.txt", uploads=os.environ["GRADIO_TEMP_DIR"])
    status, text = raw_get(demo.url, path)
    assert status in (400, 403, 404, 405)
    assert "root:" not in text
    assert not demo.connected


@pytest.mark.parametrize(
    "data",
    [
        {"path": "http://127.0.0.1:9/x.wav", "meta": {"_type": "gradio.FileData"}},
        {"path": "x", "url": "https://example.invalid/x.wav", "meta": {"_type": "gradio.FileData"}},
        {"path": {"path": "/etc/passwd"}, "meta": {"_type": "gradio.FileData"}},
        [{"deep": {"path": "ftp://example.invalid/x", "meta": {"_type": "gradio.FileData"}}}],
    ],
)
def test_a_form_cannot_make_the_server_fetch_a_file(demo: Running, data: Any) -> None:
    sent = httpx.post(f"{demo.url}/gradio_api/call/compare", json={"data": ["a", "b", data, None, "fake", ""]})
    assert sent.status_code == 400 and "from this page alone" in sent.text
    assert not demo.connected


@pytest.mark.parametrize("where", ["house", "working folder", "uploads"])
@pytest.mark.parametrize("route", ["call/compare", "queue/join"])
def test_a_form_cannot_name_a_file_of_the_server(demo: Running, house: Path, where: str, route: str) -> None:
    import os

    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    before = sorted(uploads.rglob("*"))
    path = {
        "house": house / "private.wav",
        "working folder": Path.cwd() / "pyproject.toml",
        "uploads": uploads / ".." / ".." / house.name / "private.wav",
    }[where]
    file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
    form = {"data": ["a", "b", file, None, "fake", str(house / "bank")], "fn_index": 0, "session_hash": "x"}
    sent = httpx.post(f"{demo.url}/gradio_api/{route}", json=form)
    assert sent.status_code == 400 and "from this page alone" in sent.text
    assert sorted(uploads.rglob("*")) == before  # Gradio copied nothing to where its file route reads


def test_there_is_no_way_past_the_queue(demo: Running, house: Path) -> None:
    form = {"data": ["Meow [MASK]", True, 2, "", None, "fake", str(house / "bank")]}
    for route in ("run/fill_mask", "api/fill_mask"):
        assert httpx.post(f"{demo.url}/gradio_api/{route}", json=form).status_code in (401, 403, 404)


def test_a_form_that_is_too_large_is_refused(demo: Running) -> None:
    sent = httpx.post(f"{demo.url}/gradio_api/call/fill_mask", json={"data": ["x" * 300_000]})
    assert sent.status_code == 413


def test_another_host_name_is_turned_away(demo: Running) -> None:
    assert httpx.get(demo.url, headers={"Host": "evil.example"}).status_code == 400
    assert httpx.get(demo.url, headers={"Host": "localhost"}).status_code == 200


def test_the_page_forbids_the_browser_to_load_from_elsewhere(demo: Running) -> None:
    policy = httpx.get(demo.url).headers["content-security-policy"]
    assert "default-src 'self'" in policy and "connect-src 'self'" in policy and "http" not in policy


def test_a_fault_of_the_house_is_said_without_its_insides(demo: Running, house: Path) -> None:
    with httpx.Client(timeout=60) as client:
        status, text = ask(demo.url, "crash [MASK]", str(house / "bank"), client)
        assert status == 200 and "Something went wrong" in text and "secret" not in text
        status, text = ask(demo.url, "fine [MASK]", str(house), client)
        assert text.startswith("event: error") and "cat" not in text
        assert "cat" in ask(demo.url, "Meow [MASK]", str(house / "bank"), client)[1]


def test_a_hundred_requests_at_once_are_all_answered(house: Path) -> None:
    with (
        serve(house, seconds=0.01) as demo,
        httpx.Client(timeout=120, limits=httpx.Limits(max_connections=100)) as client,
    ):
        texts = [f"Meow {n} [MASK]" for n in range(100)]
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda text: ask(demo.url, text, str(house / "bank"), client), texts))
        for text, (status, answer) in zip(texts, answers, strict=True):
            assert status == 200 and "event: complete" in answer and text.split()[1] in answer
        assert "cat" in ask(demo.url, "Meow [MASK]", str(house / "bank"), client)[1]


def test_a_full_queue_turns_requests_away_and_the_server_goes_on(house: Path) -> None:
    with serve(house, seconds=0.2, queue_limit=4) as demo, httpx.Client(timeout=120) as client:
        with ThreadPoolExecutor(40) as pool:
            answers = list(
                pool.map(lambda n: ask(demo.url, f"Meow {n} [MASK]", str(house / "bank"), client), range(40))
            )
        full = [status for status, _ in answers if status != 200]
        assert full and set(full) == {503}
        assert sum("event: complete" in text for _, text in answers) >= 4
        assert "cat" in ask(demo.url, "Meow [MASK]", str(house / "bank"), client)[1]


def test_a_bank_moved_away_loses_its_audio_and_nothing_else(house: Path, tmp_path: Path) -> None:
    from audiobert.web.shelf import Shelf

    shutil.copytree(house / "sounds", tmp_path / "sounds")
    build_bank(tmp_path / "sounds", tmp_path / "bank", ForeignEncoder(), workers=0)
    shutil.move(tmp_path / "sounds", tmp_path / "elsewhere")
    model = FakeModel(AudioBank.open(tmp_path / "bank"))
    shelf = Shelf(["fake"], [tmp_path / "bank"], loader=lambda _: model)  # type: ignore[arg-type, return-value]
    opened = shelf.choose().opened
    assert opened.audio_path(opened.bank.clip(0)) is None
    found = Shelf(["fake"], audio_root=tmp_path / "elsewhere", loader=lambda _: model).choose().opened  # type: ignore[arg-type, return-value]
    assert found.audio_path(found.bank.clip(0)) is not None


def test_the_shelf_opens_nothing_that_was_not_put_there(house: Path) -> None:
    from audiobert.web.shelf import Shelf

    shelf = Shelf(["fake"], loader=lambda _: FakeModel(AudioBank.open(house / "bank")))  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match="no bank"):
        shelf.choose(bank=str(house / "bank"))
    with pytest.raises(InputError, match="no model"):
        shelf.choose(model="../other")
    with pytest.raises(InputError, match="given twice"):
        Shelf(["a", "a"])
    assert json.dumps(shelf.models) == '["fake"]'


def test_a_port_that_is_taken_is_said(demo: Running) -> None:
    from audiobert.web.demo import bind

    port = int(demo.url.rsplit(":", 1)[1])
    with pytest.raises(InputError, match="give another --port"):
        bind("127.0.0.1", port)
