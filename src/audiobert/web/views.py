"""What a visitor sees, as HTML; every text that comes from a visitor or a bank is escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from audiobert.answers import FillMask, Hit
from audiobert.bank.licences import terms_of
from audiobert.errors import MissingExtraError
from audiobert.web.compare import Comparison, Sound
from audiobert.web.shelf import OpenedBank

if TYPE_CHECKING:
    from jinja2 import Environment

BUILD_HINT = "audiobert bank build FOLDER --out my-bank"


@cache
def environment() -> Environment:
    """The templates, with escaping.

    Raises
    ------
    MissingExtraError
        Without jinja2.
    """
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
    """A template for Gradio's HTML component, which reads its content as a template of its own: braces and dollar signs
    become character references."""
    html = environment().get_template(template).render(**values)
    return html.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def percent(share: float) -> str:
    """A probability for people: two significant digits below ten percent.

    >>> percent(0.6123), percent(0.0312), percent(0.00001)
    ('61%', '3.1%', '<0.1%')
    """
    if share >= 0.0995:
        return f"{100 * share:.0f}%"
    return f"{100 * share:.1f}%" if share >= 0.0005 else "<0.1%"


def hertz(value: float | None) -> str:
    """A pitch for people.

    >>> hertz(1234.5), hertz(None)
    ('1,234 Hz', 'no pitch')
    """
    return "no pitch" if value is None else f"{value:,.0f} Hz"


def web_address(url: str | None) -> str | None:
    """The address when it leads to the web and to nothing else (no script, no file).

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
    """What is shown of a clip."""
    clip = hit.clip
    address = urlencode({"bank": opened.key, "id": clip.id})
    return {
        "clip": clip,
        "title": clip.caption or clip.title or clip.label or clip.id,
        "score": hit.score,
        "license": terms_of(clip.license).name,
        "license_url": web_address(clip.license),
        "address": address if opened.audio_path(clip) is not None else None,
    }


def _silent(cards: list[dict[str, Any]]) -> bool:
    return bool(cards) and all(card["address"] is None for card in cards)


def pieces(text: str, spans: list[tuple[int, int]]) -> list[tuple[str, bool]]:
    """The text cut at its spans: pieces with whether each is a span.

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


def answer_view(answer: FillMask, opened: OpenedBank, *, audio: bool, seconds: float) -> str:
    """The answer to a sentence: spans, clips, and the predictions with sound beside those without."""
    spans = [(span, [clip_card(hit, opened) for hit in span.clips]) for span in answer.spans]
    best = [max(p.score for p in (*m.predictions, *m.base_predictions)) for m in answer.masks]
    return render(
        "answer.html",
        pieces=pieces(answer.text, [(span.start, span.end) for span in answer.spans]),
        answer=answer,
        masks=list(zip(answer.masks, best, strict=True)),
        spans=spans,
        audio=audio,
        milliseconds=round(1000 * seconds),
        silent=_silent([card for _, cards in spans for card in cards]),
        build_hint=BUILD_HINT,
    )


def search_view(query: str, hits: list[Hit], opened: OpenedBank, *, seconds: float) -> str:
    """The clips that a query found."""
    cards = [clip_card(hit, opened) for hit in hits]
    return render(
        "search.html",
        query=query,
        cards=cards,
        clips=len(opened.bank),
        milliseconds=round(1000 * seconds),
        silent=_silent(cards),
        build_hint=BUILD_HINT,
    )


def compare_view(comparison: Comparison, opened: OpenedBank, *, seconds: float) -> str:
    """Two sounds: measured, and what the models say."""

    def shown(sound: Sound) -> dict[str, Any]:
        return {"sound": sound, "cards": [clip_card(hit, opened) for hit in sound.clips[:3]]}

    sounds = [shown(comparison.first), shown(comparison.second)]
    return render(
        "compare.html",
        comparison=comparison,
        sounds=sounds,
        milliseconds=round(1000 * seconds),
        silent=_silent([card for one in sounds for card in one["cards"]]),
        build_hint=BUILD_HINT,
    )


def error_view(message: str) -> str:
    """What went wrong and what to do."""
    return render("error.html", message=message)
