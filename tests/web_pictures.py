"""Photograph the states of the page for docs/: `python tests/web_pictures.py AUDIO [MODEL]`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from playwright.sync_api import sync_playwright

from audiobert.web.demo import build_app, warm_up
from audiobert.web.shelf import Shelf
from web_server import CHROMIUM_FLAGS, running

DOCS = Path(__file__).resolve().parents[1] / "docs"
SIZES = {"desktop": (1100, 1000), "phone": (390, 844)}


def box(tab: Any, name: str) -> Any:
    return tab.locator(f"#{name} textarea, #{name} input[type=text]").first


def photograph(tab: Any, name: str, recording: Path, broken: Path) -> None:
    """Go through the states of the page and write a picture of each."""

    def picture(state: str) -> None:
        tab.wait_for_timeout(1_500)  # scrolling and pictures
        file = DOCS / f"demo-{name}{state}.png"
        tab.screenshot(path=file)
        Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)

    picture("-start")
    tab.locator("#sentence-go").click()
    tab.locator("#sentence-answer .ab-error").wait_for()
    picture("-empty")
    box(tab, "sentence-text").fill("Meow is the sound a [MASK] makes.")
    held: list[Any] = []
    tab.route("**/queue/join*", lambda request: held.append(request))
    tab.locator("#sentence-go").click()
    tab.locator("#sentence-answer[aria-busy=true]").wait_for()
    picture("-busy")
    for request in held:
        request.continue_()
    tab.unroute("**/queue/join*")
    tab.locator("#sentence-answer .ab-clip").first.wait_for()
    picture("")
    tab.get_by_role("button", name="A recording of your own").click()
    tab.locator("#sentence-file input[type=file]").set_input_files(broken)
    tab.locator(".ab-refused").wait_for()
    tab.locator("#sentence-own").scroll_into_view_if_needed()
    picture("-refused")
    tab.locator("#sentence-file input[type=file]").set_input_files(recording)
    tab.locator("#sentence-file audio").first.wait_for(state="attached")
    box(tab, "sentence-text").fill("This is the sound of a [MASK].")
    box(tab, "sentence-words").fill("This")
    box(tab, "sentence-words").press("Enter")
    tab.get_by_text("Your recording").wait_for()
    picture("-recording")
    tab.get_by_role("tab", name="Search").click()
    box(tab, "search-text").fill("a dog barking")
    box(tab, "search-text").press("Enter")
    tab.locator("#search-answer .ab-clip").first.wait_for()
    picture("-search")
    tab.get_by_role("tab", name="Compare").click()
    for first, second, state in (("a flute", "a double bass", "-compare"), ("a flute", "a spaceship", "-unknown")):
        box(tab, "compare-name-1").fill(first)
        box(tab, "compare-name-2").fill(second)
        tab.locator("#compare-go").click()
        tab.locator("#compare-answer").get_by_text(f"the sound of {second}.").wait_for()
        picture(state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("audio", type=Path, help="folder that the paths of the bank's clips start from")
    parser.add_argument("model", nargs="?", default="mini")
    arguments = parser.parse_args()
    shelf = Shelf([arguments.model], audio_root=arguments.audio)
    warm_up(shelf)
    bank = shelf.choose().opened
    cat = next(path for clip in bank.bank.clips() if clip.label == "cat" and (path := bank.audio_path(clip)))
    with tempfile.TemporaryDirectory() as folder, running(build_app(shelf)) as demo, sync_playwright() as playwright:
        recording, broken = Path(folder) / "my recording.wav", Path(folder) / "broken take 3.wav"
        samples, rate_hz = soundfile.read(cat, dtype="float32")
        soundfile.write(recording, np.atleast_2d(samples.T).mean(axis=0), rate_hz)
        broken.write_text("not a sound")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        for name, (width, height) in SIZES.items():
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.goto(demo.url)
            box(tab, "sentence-text").wait_for()
            photograph(tab, name, recording, broken)
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
