"""The demo page as a person uses it: typed into, clicked and listened to in a headless Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from audiobert.web.page import EXAMPLES
from web_server import CHROMIUM_FLAGS, MODEL, ForeignEncoder, Running, copy_sounds, running, tone

pytestmark = [pytest.mark.browser, pytest.mark.slow]
gradio = pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")

WAIT_MS = 60_000
MEOW = "Meow is the sound a [MASK] makes."


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium here; install the package 'chromium'")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def demo(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The page with a bank that has audio, the model's own that has none, and one of another model."""
    from audiobert.bank import build_bank
    from audiobert.web.demo import build_app, warm_up
    from audiobert.web.shelf import OWN_BANK, Shelf

    folder = tmp_path_factory.mktemp("page")
    manifest = copy_sounds(shared, folder / "sounds")
    mine, foreign = folder / "my-bank", folder / "foreign-bank"
    encoder = Shelf([MODEL]).choose().model.clip_encoder()
    build_bank(manifest, mine, encoder, workers=0)
    build_bank(manifest, foreign, ForeignEncoder(), workers=0)
    shelf = Shelf([MODEL], [mine, foreign])
    warm_up(shelf)
    with running(build_app(shelf)) as demo:
        demo.shelf = shelf
        demo.banks = {"mine": str(mine), "foreign": str(foreign), "own": OWN_BANK}
        yield demo


@pytest.fixture
def page(chromium: Any, demo: Running) -> Iterator[Any]:
    """A fresh tab on the page; at the end nothing was asked of elsewhere and no script had failed."""
    tab = chromium.new_page(viewport={"width": 1100, "height": 900})
    tab.set_default_timeout(WAIT_MS)
    asked: list[str] = []
    faults: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    tab.goto(demo.url)
    box(tab).wait_for()
    tab.faults = faults
    yield tab
    tab.close()
    own = urlsplit(demo.url).netloc
    elsewhere = [url for url in asked if urlsplit(url).scheme in ("http", "https") and urlsplit(url).netloc != own]
    assert not elsewhere
    assert not demo.connected
    assert not faults


def box(tab: Any, name: str = "sentence-text") -> Any:
    return tab.locator(f"#{name} textarea, #{name} input[type=text]").first


def ask(tab: Any, sentence: str) -> Any:
    """Type a sentence, press Enter, and wait for what comes."""
    box(tab).fill(sentence)
    box(tab).press("Enter")
    return tab.locator("#sentence-answer")


def choose_bank(tab: Any, name: str) -> None:
    tab.get_by_label("Bank").click()
    tab.get_by_role("option", name=name, exact=True).click()


def words(part: Any) -> list[str]:
    return part.locator(".ab-word").all_inner_texts()


def test_a_sentence_is_answered_with_what_it_sounds_like(page: Any) -> None:
    answer = ask(page, MEOW)
    answer.locator("[data-testid=with-sound]").wait_for()
    assert answer.locator("mark").all_inner_texts() == ["Meow"]
    assert words(answer.locator("[data-testid=with-sound]"))[0] == "cat"
    assert len(words(answer.locator("[data-testid=without-sound]"))) == 8
    card = answer.locator(".ab-clip").first
    text = card.inner_text()
    for shown in ("Score", "Pitch", "Level", "File", "Licence"):
        assert shown in text
    assert re.search(r"Answered in \d+ ms", answer.inner_text())


def test_a_clip_plays_seeks_and_has_its_picture(page: Any) -> None:
    card = ask(page, MEOW).locator(".ab-clip").first
    card.wait_for()
    image = card.locator("img")
    image.scroll_into_view_if_needed()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=image.element_handle())
    played = card.locator("audio").evaluate(
        """async audio => {
            await audio.play();
            await new Promise(done => audio.addEventListener('timeupdate', () => audio.currentTime > 0 && done()));
            const whole = audio.duration;
            audio.currentTime = whole * 0.6;
            await new Promise(done => audio.addEventListener('seeked', done, {once: true}));
            return [whole, audio.currentTime, audio.error];
        }"""
    )
    assert played[0] > 0.3 and played[1] >= played[0] * 0.5 and played[2] is None


def test_one_sound_plays_at_a_time(page: Any) -> None:
    answer = ask(page, MEOW)
    answer.locator("audio").nth(1).wait_for()
    paused = answer.locator("audio").evaluate_all(
        """async ([first, second]) => {
            await first.play();
            await second.play();
            return [first.paused, second.paused];
        }"""
    )
    assert paused == [True, False]


def test_audio_off_is_the_plain_language_model(page: Any) -> None:
    answer = ask(page, MEOW)
    answer.locator("[data-testid=with-sound]").wait_for()
    plain = words(answer.locator("[data-testid=without-sound]"))
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Audio", exact=True).uncheck()
    answer.get_by_text("Switched off: this is").wait_for()
    assert answer.locator("[data-testid=with-sound]").count() == 0
    assert answer.locator("mark").count() == 0
    assert words(answer.locator("[data-testid=without-sound]")) == plain


def test_a_sentence_without_sound_says_so(page: Any) -> None:
    answer = ask(page, "The capital of France is [MASK].")
    answer.get_by_text("Nothing about sound").wait_for()
    assert answer.locator(".ab-clip").count() == 0


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("Meow is the sound a cat makes.", "no [MASK] in"),
        ("   ", "the sentence is empty"),
        ("word " * 2_000 + "[MASK]", "10,006 characters; the page takes up to 5,000"),
    ],
)
def test_a_wrong_sentence_is_explained_in_the_page(page: Any, sentence: str, message: str) -> None:
    alert = ask(page, sentence).get_by_role("alert")
    alert.wait_for()
    assert message in alert.inner_text()
    ask(page, MEOW).locator("[data-testid=with-sound]").wait_for()  # and the next one is answered


def test_a_bank_of_another_model_is_refused_by_name(page: Any, demo: Running) -> None:
    choose_bank(page, demo.banks["foreign"])
    alert = ask(page, MEOW).get_by_role("alert")
    alert.wait_for()
    assert "foreign/clap" in alert.inner_text() and "audiobert bank build" in alert.inner_text()


def test_the_shipped_bank_says_that_it_has_no_audio_and_how_to_get_some(page: Any, demo: Running) -> None:
    choose_bank(page, demo.banks["own"])
    answer = ask(page, MEOW)
    note = answer.locator("[data-testid=no-audio]")
    note.wait_for()
    assert "audiobert bank build" in note.inner_text() and "audiobert demo --bank" in note.inner_text()
    assert answer.locator("audio").count() == 0


def test_markup_and_templates_in_a_sentence_stay_text(page: Any) -> None:
    given = "<img src=x onerror=alert(1)> ${6*7} {{6*7}} `x` meow says the [MASK]"
    answer = ask(page, given)
    answer.locator(".ab-sentence").wait_for()
    assert answer.locator(".ab-sentence").inner_text().strip() == given
    assert answer.locator(".ab-sentence img").count() == 0


def test_it_works_by_keyboard_alone(page: Any) -> None:
    box(page).focus()
    page.keyboard.type(MEOW)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "sentence-go"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # focus is visible
    page.keyboard.press("Space")
    answer = page.locator("#sentence-answer")
    answer.locator("[data-testid=with-sound]").wait_for()
    # The players can be reached and played too.
    answer.locator("audio").first.focus()
    page.keyboard.press("Space")
    page.wait_for_function("!document.querySelector('#sentence-answer audio').paused")


def test_an_example_answers_when_it_is_clicked(page: Any) -> None:
    page.get_by_role("button", name=EXAMPLES[-1], exact=True).click()
    page.locator("#sentence-answer mark").first.wait_for()
    assert box(page).input_value() == EXAMPLES[-1]


def test_the_bank_is_searched_by_words(page: Any) -> None:
    page.get_by_role("tab", name="Search").click()
    box(page, "search-text").fill("a cat meowing")
    box(page, "search-text").press("Enter")
    found = page.locator("#search-answer [data-testid=found]")
    found.wait_for()
    assert "10 of 13 clips for “a cat meowing”" in found.inner_text()
    titles = found.locator(".ab-clip h4").all_inner_texts()
    assert len(titles) == 10 and "cat" in titles[0]
    scores = [float(text) for text in found.locator("dl div:first-child dd").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)


def test_arrow_keys_switch_tabs(page: Any) -> None:
    chosen = page.locator("[role=tab][aria-selected=true]")
    page.get_by_role("tab", name="Sentence").focus()
    for key, name in (
        ("ArrowRight", "Search"),
        ("ArrowRight", "Compare"),
        ("ArrowRight", "Sentence"),
        ("ArrowLeft", "Compare"),
    ):
        page.keyboard.press(key)
        assert chosen.inner_text() == name == page.evaluate("document.activeElement.textContent").strip()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    box(page, "compare-name-1").fill("a flute")
    box(page, "compare-name-1").press("ArrowLeft")  # in a text it moves the cursor
    assert chosen.inner_text() == "Compare"


def test_two_sounds_are_compared_by_name(page: Any) -> None:
    page.get_by_role("tab", name="Compare").click()
    box(page, "compare-name-1").fill("a flute")
    box(page, "compare-name-2").fill("a double bass")
    box(page, "compare-name-2").press("Enter")
    compared = page.locator("#compare-answer [data-testid=compared]")
    compared.wait_for()
    assert "The sound of a flute has a [MASK] pitch than the sound of a double bass." in compared.inner_text()
    assert re.search(r"a flute is higher by \d+", compared.locator("[data-testid=measured]").inner_text())
    for said in ("says-with", "says-without"):
        text = compared.locator(f"[data-testid={said}]").inner_text()
        assert re.search(r"(a flute|a double bass) is higher|undecided", text)


def test_a_sound_that_the_bank_lacks_is_not_measured(page: Any) -> None:
    page.get_by_role("tab", name="Compare").click()
    box(page, "compare-name-1").fill("a flute")
    box(page, "compare-name-2").fill("a spaceship")
    box(page, "compare-name-2").press("Enter")
    measured = page.locator("#compare-answer [data-testid=measured]")
    measured.wait_for()
    assert measured.inner_text().startswith("not known; nothing in this bank is a spaceship, the nearest are")


def give_file(page: Any, slot: str, file: Path) -> Any:
    """Choose a file for an upload; returns the server's answer."""
    with page.expect_response(re.compile(r"/gradio_api/upload(\?|$)")) as response:
        page.locator(f"#{slot} input[type=file]").set_input_files(file)
    return response.value


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return tone(tmp_path / "tone.wav", 660, 2.0)


def test_a_recording_is_compared_without_a_name(page: Any, recording: Path) -> None:
    page.get_by_role("tab", name="Compare").click()
    assert give_file(page, "compare-file-1", recording).ok
    box(page, "compare-name-2").fill("a double bass")
    page.locator("#compare-file-1 audio").first.wait_for(state="attached")
    page.locator("#compare-go").click()
    compared = page.locator("#compare-answer [data-testid=compared]")
    compared.wait_for()
    text = compared.inner_text()
    assert "The sound of the first recording has" in text
    assert re.search(r"6[56]\d Hz", text) and "your recording (2.0 s" in text


def test_a_recording_stands_for_words_of_a_sentence(page: Any, recording: Path) -> None:
    page.get_by_role("button", name="A recording of your own").click()
    assert give_file(page, "sentence-file", recording).ok
    page.locator("#sentence-file audio").first.wait_for(state="attached")
    alert = ask(page, "This is the sound of a [MASK].").get_by_role("alert")
    alert.wait_for()
    assert "not the words that it stands for" in alert.inner_text()
    box(page, "sentence-words").fill("This")
    box(page, "sentence-words").press("Enter")
    answer = page.locator("#sentence-answer")
    answer.get_by_text("Your recording").wait_for()
    assert "This" in answer.locator("mark").all_inner_texts()
    assert words(answer.locator("[data-testid=with-sound]")) != words(answer.locator("[data-testid=without-sound]"))


def test_an_upload_that_is_no_sound_is_refused_in_its_place(page: Any, tmp_path: Path, recording: Path) -> None:
    (tmp_path / "fake.wav").write_text("<script>alert(1)</script>")
    page.get_by_role("tab", name="Compare").click()
    assert give_file(page, "compare-file-2", tmp_path / "fake.wav").status == 415
    refused = page.locator(".ab-upload:has(#compare-file-2) [role=alert]")
    refused.wait_for()
    assert "“fake.wav” cannot be decoded; give a WAV" in refused.inner_text() and "415" not in refused.inner_text()
    assert page.locator(".ab-refused").count() == 1 and page.locator(".toast-body").count() == 0
    page.wait_for_timeout(1_000)
    assert refused.is_visible()  # it stays
    page.faults.clear()  # the browser's console names the refused request
    assert give_file(page, "compare-file-2", recording).ok  # until there is a sound
    page.locator("#compare-file-2 audio").first.wait_for(state="attached")
    assert refused.count() == 0


def test_the_page_shows_that_it_is_busy_and_then_the_answer(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate(
        """() => {
            window.busy = [];
            const answer = document.getElementById('sentence-answer');
            new MutationObserver(() => busy.push(answer.getAttribute('aria-busy'))).observe(
                answer, {attributeFilter: ['aria-busy']});
        }"""
    )
    for sentence in (MEOW, "no mask"):  # an error ends it, too
        box(page).fill(sentence)
        page.locator("#sentence-go").click()
        page.wait_for_function("busy.length == 2")
        assert page.evaluate("busy.splice(0)") == ["true", None]
        if sentence == MEOW:
            first_bar = page.locator("#sentence-answer .ab-bars li").first
            page.wait_for_function("!document.getElementById('sentence-answer').hasAttribute('aria-busy')")
            page.wait_for_timeout(300)
            place = first_bar.bounding_box()
            assert 0 <= place["y"] < 844 / 2, "the answer is not in the upper half of the phone's screen"


def test_it_fits_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    answer = ask(page, MEOW)
    answer.locator("[data-testid=with-sound]").wait_for()
    for tab in ("Sentence", "Search", "Compare"):
        page.get_by_role("tab", name=tab).first.click()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{tab}: {wide} pixels wide"
