"""What the page shows and how two sounds are compared, without a browser; and the command that starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from audiobert import AudioBert
from audiobert.answers import AuditorySpan, FillMask, Hit, MaskPredictions, MaskScores, Prediction
from audiobert.auditorybench.kinds import is_withheld
from audiobert.bank import AudioBank, Clip, build_bank
from audiobert.cli import run
from audiobert.errors import InputError
from audiobert.model_folder import ModelSettings
from audiobert.retrieve import Found
from web_server import MODEL, ForeignEncoder, tone

pytest.importorskip("jinja2")
from audiobert.web.compare import Said, compare_sounds, known_score
from audiobert.web.page import EXAMPLES
from audiobert.web.shelf import OpenedBank
from audiobert.web.views import answer_view, compare_view, error_view, few, percent, search_view, web_address


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenedBank:
    folder = tmp_path_factory.mktemp("views")
    for label, hertz in (("low_tone", 220.0), ("high_tone", 880.0)):
        tone(folder / "sounds" / label / "a.wav", hertz)
    build_bank(folder / "sounds", folder / "bank", ForeignEncoder(), workers=0)
    return OpenedBank("bank-0", AudioBank.open(folder / "bank"), folder / "sounds")


HOSTILE = '"><img src=x onerror=alert(1)> ${6*7} {{6*7}}'


def hostile_hit(**more: Any) -> Hit:
    given: dict[str, Any] = {
        "id": HOSTILE,
        "caption": HOSTILE,
        "author": HOSTILE,
        "source": HOSTILE,
        "license": HOSTILE,
    }
    return Hit(Clip(**(given | {"url": "javascript:alert(1)"} | more)), 0.5, 0)


def test_whatever_a_bank_says_is_shown_as_text(opened: OpenedBank) -> None:
    for html in (
        search_view(HOSTILE, [hostile_hit()], opened, floor=0.5, seconds=0.1),
        error_view(HOSTILE),
        answer_view(
            FillMask(
                HOSTILE,
                True,
                (AuditorySpan(HOSTILE[:5], 0, 5, 0.9, (hostile_hit(),)),),
                (MaskPredictions((Prediction(HOSTILE, 0.5),), (Prediction("b", 0.1),)),),
            ),
            opened,
            audio=True,
            floor=0.5,
            seconds=0.1,
        ),
    ):
        assert "<img src=x" not in html and "javascript:" not in html
        assert not re.search(r"[{}$`]", html)  # Gradio reads its HTML as a template
        assert "onerror" in html  # it is there, as text


def test_links_lead_to_the_web_and_nowhere_else(opened: OpenedBank) -> None:
    hit = hostile_hit(url="https://freesound.org/s/1/", license="https://creativecommons.org/licenses/by/4.0/")
    html = search_view("x", [hit], opened, floor=0.5, seconds=0.1)
    assert 'href="https://freesound.org/s/1/"' in html and ">CC BY</a>" in html and "noopener" in html
    for address in (
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:text/html,x",
        "//x",
        "http://",
        "http://[",
        None,
    ):
        assert web_address(address) is None


def test_a_clip_is_named_by_its_id_and_bank(opened: OpenedBank) -> None:
    hits = [Hit(opened.bank.clip(row), 0.5 - 0.1 * row, row) for row in range(2)]
    html = search_view("tone", hits, opened, floor=0.5, seconds=0.1)
    assert html.count("<audio") == 2 and "clips/sound?bank=bank-0&amp;id=high_tone%2Fa.wav" in html
    assert "no-audio" not in html
    silent = OpenedBank("own-0", opened.bank, None)
    assert "audiobert bank build" in search_view("tone", hits, silent, floor=0.5, seconds=0.1)


def test_a_span_of_many_clips_shows_a_few_of_different_kinds(opened: OpenedBank) -> None:
    hits = [Hit(Clip(f"flute{n}", caption="a flute"), 0.9 - n / 100, n) for n in range(30)]
    hits += [Hit(Clip("piccolo", caption="a piccolo"), 0.5, 30), Hit(Clip("fife", caption="a fife"), 0.4, 31)]
    assert [hit.clip.id for hit in few(hits)] == ["flute0", "flute1", "piccolo", "fife"]
    answer = FillMask("Toot", True, (AuditorySpan("Toot", 0, 4, 0.9, tuple(hits)),), ())
    html = answer_view(answer, opened, audio=True, floor=0.5, seconds=0.1)
    assert html.count("<article") == 4 and "sounds like <small>4 of the 32 clips" in html


@pytest.mark.slow
def test_examples_show_hearing() -> None:
    """Two examples compare kinds that no training contained, in both orders, and the shipped model answers them."""
    pair = [text for text in EXAMPLES if "timpani" in text]
    assert len(pair) == 2 and is_withheld("frog") and is_withheld("timpani")
    words = [answer.masks[0].predictions[0].token for answer in AudioBert.from_pretrained("mini").fill_mask(pair)]
    assert words == ["higher", "lower"]
    assert all("frog" in text for text in pair)


@pytest.mark.parametrize(("score", "known"), [(0.5, True), (0.49, False)])
def test_a_clip_below_the_floor_is_not_said_to_be_the_sound(opened: OpenedBank, score: float, known: bool) -> None:
    hit = Hit(opened.bank.clip(0), score, 0)
    answer = FillMask("Toot", True, (AuditorySpan("Toot", 0, 4, 0.9, (hit,)),), ())
    html = answer_view(answer, opened, audio=True, floor=0.5, seconds=0.1)
    assert ("“Toot” sounds like" in html) is known and ("Nothing in this bank is surely “Toot”" in html) is not known
    html = search_view("toot", [hit], opened, floor=0.5, seconds=0.1)
    assert ("nothing in this bank is surely that" in html) is not known


def test_bars_are_as_long_as_the_probability() -> None:
    said = (Prediction("film", 0.016), Prediction("man", 0.008))
    answer = FillMask("a [MASK]", False, (), (MaskPredictions(said, said),))
    html = answer_view(answer, OpenedBank("x", None, None), audio=True, floor=0.5, seconds=0.1)  # type: ignore[arg-type]
    assert re.findall(r"width: ([\d.]+)%", html) == ["1.6", "0.8"]


def test_a_recording_of_ones_own_is_shown_without_its_place(opened: OpenedBank) -> None:
    mine = Hit(Clip("sound.wav", path="/tmp/x/sound.wav", title="sound", pitch_hz=440.0, duration_s=1.0), 1.0, -1)
    answer = FillMask("This", True, (AuditorySpan("This", 0, 4, 1.0, (mine,)),), ())
    html = answer_view(answer, opened, audio=True, floor=0.5, seconds=0.1)
    assert "Your recording" in html and "440 Hz" in html and "sound.wav" not in html
    assert "no-audio" not in html and "Licence" not in html and "Score" not in html


def test_small_probabilities_are_not_called_nothing() -> None:
    assert [percent(share) for share in (1.0, 0.099, 0.0004, 0.0)] == ["100%", "9.9%", "<0.1%", "<0.1%"]


class Tokenizer:
    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [{"higher": 0, "lower": 1}[text.strip()]]


class Biased:
    """A model that has learnt which of two names is the higher one, and leans towards "higher" without sound."""

    mask_token = "[MASK]"
    tokenizer = Tokenizer()
    settings = ModelSettings()

    def __init__(self, bank: AudioBank, score: float = 0.9) -> None:
        self.banks, self.retriever, self.score = (bank,), self, score
        self.asked: list[tuple[str, Any, Any]] = []

    def clip_encoder(self) -> ForeignEncoder:
        return ForeignEncoder()

    def search(self, query: str, top_k: int) -> list[Hit]:
        del top_k
        wanted = "high_tone" if "high" in query else "low_tone"
        return [Hit(clip, self.score, row) for row, clip in enumerate(self.banks[0].clips()) if clip.label == wanted]

    def find(self, texts: list[str]) -> list[Found]:
        return [Found(tuple(self.search(text, 1)), np.zeros(4, dtype=np.float32)) for text in texts]

    def score_masks(self, texts: list[str], *, sound: str, spans: Any = None, hits: Any = None) -> list[MaskScores]:
        self.asked.append((texts[0], spans, hits))
        on = sound == "on"
        chances = [0.9 if text.index("high t") < text.index("[MASK]") else 0.2 for text in texts] if on else [0.7, 0.7]
        return [MaskScores(torch.tensor([[c, 1 - c]]).log(), on) for c in chances]


def test_two_names_are_measured_on_the_banks_clips_and_asked_both_ways(opened: OpenedBank) -> None:
    model: Any = Biased(opened.bank)
    found = compare_sounds(model, "a low tone", " a  high tone ")
    assert found.question == "The sound of a low tone has a [MASK] pitch than the sound of a high tone."
    assert found.first.pitch_hz == pytest.approx(220, rel=0.02)
    assert found.second.pitch_hz == pytest.approx(880, rel=0.02)
    assert found.semitones == pytest.approx(-24, abs=0.5) and found.measured_higher is False
    assert found.with_sound == Said(pytest.approx(0.2), pytest.approx(0.1)) and found.with_sound.consistent
    # "higher" whatever is asked: the two orders cancel out, and it is said.
    assert found.without_sound.higher == pytest.approx(0.5) and not found.without_sound.consistent
    text, spans, hits = model.asked[0]
    assert [text[start:end] for start, end in spans[0]] == ["a low tone", "a high tone"]
    assert [hit.clip.label for (hit,) in hits[0]] == ["low_tone", "high_tone"]
    html = compare_view(found, opened, seconds=0.1)
    assert "<strong>a high tone</strong> is higher by 24" in html and "undecided" in html


def test_a_name_that_is_a_word_of_the_question_is_found_in_its_place(opened: OpenedBank) -> None:
    model: Any = Biased(opened.bank)
    compare_sounds(model, "sound", "a high t")
    text, spans, _ = model.asked[0]
    assert spans[0][0] == (len("The sound of "), len("The sound of sound")) and text[slice(*spans[0][1])] == "a high t"


def test_what_the_bank_lacks_is_not_known_and_its_nearest_clips_are_named(opened: OpenedBank) -> None:
    floor = known_score(Biased(opened.bank))  # type: ignore[arg-type]
    model: Any = Biased(opened.bank, score=floor - 0.01)
    found = compare_sounds(model, "a low tone", "a high tone")
    assert found.semitones is None and not found.first.known and not found.second.known
    html = compare_view(found, opened, seconds=0.1)
    measured = html.split('data-testid="measured">')[1].split("</dd>")[0]
    assert "not known" in measured and "is higher" not in measured
    assert f"the nearest are a ({floor - 0.01:.2f})" in measured
    assert html.count("none of them of it") == 2
    assert compare_sounds(Biased(opened.bank, score=floor), "a low tone", "a high tone").first.known  # type: ignore[arg-type]


def test_a_recording_is_measured_and_injected(opened: OpenedBank, tmp_path: Path) -> None:
    model: Any = Biased(opened.bank)
    found = compare_sounds(model, "", "a high tone", files=(tone(tmp_path / "mine.wav", 330), None))
    assert found.first.pitch_hz == pytest.approx(330, rel=0.02) and found.first.attributes is not None
    # Without a name nothing but the recording says what it is.
    assert found.question.startswith("The sound of the first recording has")
    (forward, backward) = model.asked[0][2]
    assert forward[0] == backward[1] == found.first.injected
    (hit,) = forward[0]
    assert hit.row == -1 and hit.knowledge is not None and hit.knowledge.shape == (12,)
    assert {hit.clip.label for hit in found.first.clips} == {"low_tone", "high_tone"}  # nearest by sound
    html = compare_view(found, opened, seconds=0.1)
    assert "your recording (1.0 s" in html and str(tmp_path) not in html


@pytest.mark.parametrize(
    ("names", "message"), [(("", "b"), "sound 1 is empty"), (("high t", "a [mask]"), "sound 2 has a mask")]
)
def test_a_sound_without_a_name_is_asked_for(opened: OpenedBank, names: tuple[str, str], message: str) -> None:
    model: Any = Biased(opened.bank)
    with pytest.raises(InputError, match=re.escape(message)):
        compare_sounds(model, *names)


def test_a_recording_that_is_none_is_refused_without_naming_its_path(opened: OpenedBank, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("no sound")
    model: Any = Biased(opened.bank)
    with pytest.raises(InputError, match=r"the recording of sound 2.* cannot be decoded") as caught:
        compare_sounds(model, "high t", "", files=(None, tmp_path / "x.wav"))
    assert str(tmp_path) not in str(caught.value)


def test_without_gradio_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in ("gradio", "uvicorn"):
        monkeypatch.setitem(sys.modules, library, None)
    assert run(["demo"]) == 2
    assert "pip install 'gradio" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--port", "99999"], ["--queue", "0"], ["--audio-root", "/no/such/folder"]])
def test_a_wrong_option_is_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_the_command_serves_on_loopback_until_it_is_interrupted() -> None:
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "audiobert", "demo", "--port", "0", "--model", MODEL]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as demo:
        assert demo.stdout is not None and demo.stderr is not None
        line = demo.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        if address is None:
            demo.kill()
            pytest.fail(f"no address in {line!r}: {demo.stderr.read()}")
        assert "AudioBERT" in httpx.get(address.group(), timeout=60).text
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
        assert "Traceback" not in demo.stderr.read()


def test_a_single_model_and_bank_need_no_choice() -> None:
    from audiobert.web.shelf import OWN_BANK, Shelf

    shelf = Shelf(["mini"], loader=lambda name: SimpleNamespace(name=name))  # type: ignore[arg-type, return-value]
    assert shelf.banks == [OWN_BANK] and shelf.models == ["mini"]
