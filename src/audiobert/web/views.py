"""Render what a visitor sees as HTML; every text that comes from a visitor or a bank is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from audiobert.answers import FillMask, Hit
from audiobert.bank.licences import terms_of
from audiobert.errors import MissingExtraError
from audiobert.web.compare import Comparison
from audiobert.web.shelf import OpenedBank

if TYPE_CHECKING:
    from jinja2 import Environment

BUILD_HINT = "audiobert bank build FOLDER --out my-bank"
SHOWN_CLIPS = 4  # of a span, which may have dozens


@cache
def environment() -> Environment:
    """Return the templates, with escaping; MissingExtraError without jinja2."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("jinja2", "web") from None
    made = Environment(
        loader=PackageLoader("audiobert.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "hertz": hertz, "web_address": web_address}
    return made


def render(template: str, **values: Any) -> str:
    """Render a template for Gradio's HTML component.

    That reads its content as a template of its own, so braces and dollar signs become character references.
    """
    html = environment().get_template(template).render(**values)
    return html.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def percent(share: float) -> str:
    """Format a probability: two significant digits below ten percent.

    >>> percent(0.6123), percent(0.0312), percent(0.00001)
    ('61%', '3.1%', '<0.1%')
    """
    if share >= 0.0995:
        return f"{100 * share:.0f}%"
    return f"{100 * share:.1f}%" if share >= 0.0005 else "<0.1%"


def hertz(value: float | None) -> str:
    """Format a pitch.

    >>> hertz(1234.5), hertz(None)
    ('1,234 Hz', 'no pitch')
    """
    return "no pitch" if value is None else f"{value:,.0f} Hz"


def web_address(url: str | None) -> str | None:
    """Return the address if it leads to the web and to nothing else (no script, no file).

    >>> web_address("javascript:alert(1)") is None
    True
    """
    if not url:
        return None
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return None
    return url.strip() if parts.scheme in ("http", "https") and parts.netloc else None


def clip_card(hit: Hit, opened: OpenedBank) -> dict[str, Any]:
    """Return what is shown of a clip; a recording of the visitor's has no score and no licence."""
    clip = hit.clip
    if hit.row < 0:
        return {"clip": clip, "title": "Your recording", "own": True, "address": None}
    path = opened.audio_path(clip)
    return {
        "clip": clip,
        "title": title_of(hit),
        "own": False,
        "score": hit.score,
        "license": terms_of(clip.license).name,
        "license_url": web_address(clip.license),
        "file": path.relative_to(opened.audio_root.resolve()) if path and opened.audio_root else None,
        "address": urlencode({"bank": opened.key, "id": clip.id}) if path else None,
    }


def title_of(hit: Hit) -> str:
    """Return what a clip is called."""
    clip = hit.clip
    return clip.caption or clip.title or clip.label or clip.id


def few(hits: Sequence[Hit], most: int = SHOWN_CLIPS) -> list[Hit]:
    """Return the best clips, those with different titles first.

    >>> from audiobert.bank import Clip
    >>> [hit.clip.id for hit in few([Hit(Clip(name, caption=name[0]), 0.5) for name in ("a1", "a2", "b1", "a3")], 3)]
    ['a1', 'a2', 'b1']
    """
    first: dict[str, int] = {}
    for place, hit in enumerate(hits):
        first.setdefault(title_of(hit), place)
    distinct = list(first.values())
    rest = [place for place in range(len(hits)) if place not in distinct]
    return [hits[place] for place in sorted([*distinct, *rest][:most])]


def _without_audio(cards: Iterable[dict[str, Any]]) -> bool:
    of_bank = [card for card in cards if not card["own"]]
    return bool(of_bank) and all(card["address"] is None for card in of_bank)


def pieces(text: str, spans: list[tuple[int, int]]) -> list[tuple[str, bool]]:
    """Cut a text at its spans; returns pieces with whether each is a span.

    >>> pieces("a meow", [(2, 6)])
    [('a ', False), ('meow', True)]
    """
    cut, at = [], 0
    for start, end in sorted(spans):
        start = max(start, at)
        if end > start:
            cut += [(text[at:start], False), (text[start:end], True)]
            at = end
    return [piece for piece in [*cut, (text[at:], False)] if piece[0]]


def answer_view(answer: FillMask, opened: OpenedBank, *, audio: bool, floor: float, seconds: float) -> str:
    """Show the answer to a sentence: spans, clips, and the predictions with sound beside those without.

    `floor` is the retrieval score from which on a clip counts as one of what the span names.
    """
    spans = [(span, [clip_card(hit, opened) for hit in few(span.clips)]) for span in answer.spans]
    return render(
        "answer.html",
        pieces=pieces(answer.text, [(span.start, span.end) for span in answer.spans]),
        answer=answer,
        spans=spans,
        audio=audio,
        floor=floor,
        milliseconds=round(1000 * seconds),
        without_audio=_without_audio(card for _, cards in spans for card in cards),
        build_hint=BUILD_HINT,
    )


def search_view(query: str, hits: list[Hit], opened: OpenedBank, *, floor: float, seconds: float) -> str:
    """Show the clips that a query found; `floor` as for `answer_view`."""
    cards = [clip_card(hit, opened) for hit in hits]
    return render(
        "search.html",
        query=query,
        cards=cards,
        known=bool(hits) and hits[0].score >= floor,
        clips=len(opened.bank),
        milliseconds=round(1000 * seconds),
        without_audio=_without_audio(cards),
        build_hint=BUILD_HINT,
    )


def compare_view(comparison: Comparison, opened: OpenedBank, *, seconds: float) -> str:
    """Show two sounds: measured, and what the models predict."""
    sounds = (comparison.first, comparison.second)
    nearest = [few(sound.clips, 3) for sound in sounds]
    cards = [[clip_card(hit, opened) for hit in hits] for hits in nearest]
    return render(
        "compare.html",
        comparison=comparison,
        sounds=[
            {"sound": sound, "nearest": hits, "cards": own}
            for sound, hits, own in zip(sounds, nearest, cards, strict=True)
        ],
        title_of=title_of,
        milliseconds=round(1000 * seconds),
        without_audio=_without_audio(card for own in cards for card in own),
        build_hint=BUILD_HINT,
    )


def error_view(message: str) -> str:
    """Show what went wrong and what to do."""
    return render("error.html", message=message)
