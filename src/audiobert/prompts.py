"""Fill prompts of causal language models: blanks in place of masks, chat templates, and the spans inside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from audiobert.errors import InputError
from audiobert.sentence import MASK, Offsets, Sentence, check_text, fill_mask, shortened

BLANK = "____"
_PLACE = re.compile(r"\{(text|blank|stem|choices)\}")
_MASKS = re.compile(r"\[mask\]", re.IGNORECASE)
# Stands for the user's words while a chat template is filled; a private character, so that no text has it.
_WORDS = "\ue000words\ue000"


def blank_template(words: Sequence[str] = ()) -> str:
    r"""Return the template of a prompt for the word in place of `[MASK]`, one of `words` where there are some.

    >>> blank_template(["higher", "lower"])
    "Fill in the blank with 'higher' or 'lower'.\nSentence: {blank}\nAnswer:"
    """
    choice = " or ".join(f"'{word}'" for word in words) or "one word"
    return f"Fill in the blank with {choice}.\nSentence: {{blank}}\nAnswer:"


def fill_template(
    template: str, text: str, spans: Sequence[Offsets] = (), choices: str = ""
) -> tuple[str, list[Offsets]]:
    """Put a text into a prompt's template and move the spans along; a span beyond the part that is shown is left out.

    Parameters
    ----------
    template
        `{text}` is the text, `{blank}` the text with `____` for its mask, `{stem}` the text up to the mask, `{choices}`
        the lettered options. Other braces stay as they are.

    >>> fill_template("Say it: {blank}", "a [MASK] meows", [(9, 14)])
    ('Say it: a ____ meows', [(15, 20)])
    """
    inside = [(start, end) for start, end in spans if end <= len(text)]
    stem = text.split(MASK)[0].rstrip()
    forms: dict[str, tuple[str, list[Offsets]]] = {
        "text": (text, inside),
        "blank": fill_mask(text, inside, BLANK) if MASK in text else (text, inside),
        "stem": (stem, [span for span in inside if span[1] <= len(stem)]),
        "choices": (choices, []),
    }
    prompt, moved, at = "", list[Offsets](), 0
    for match in _PLACE.finditer(template):
        prompt += template[at : match.start()]
        shown, places = forms[match.group(1)]
        moved = moved or [(start + len(prompt), end + len(prompt)) for start, end in places]
        prompt += shown
        at = match.end()
    return prompt + template[at:], moved


def read_blank(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int) -> Sentence:
    """Turn a text with one `[MASK]` into the prompt that a causal language model completes with the missing word.

    InputError if the text is no string, has no mask or several, or does not fit into the model's window.
    """
    check_text(text)
    masks = list(_MASKS.finditer(text))
    if len(masks) != 1:
        raise InputError(
            f"{shortened(text)!r} has {len(masks)} [MASK]; a causal language model fills one per text: give each in a"
            " text of its own, or complete the text instead"
        )
    (start, end), (before, after) = masks[0].span(), blank_template().split("{blank}")
    behind = len(before) + start + len(BLANK)
    pieces = ((len(before), 0, start), (behind - len(BLANK), start, len(BLANK)), (behind, end, len(text) - end))
    prompt = before + text[:start] + BLANK + text[end:] + after
    check_length(tokenizer, prompt, max_tokens)
    return Sentence(text, prompt, pieces, 1)


def read_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int, *, chat: bool = False, name: str = "this model"
) -> Sentence:
    """Return a text as a prompt, as it is or inside the model's chat template.

    InputError if it is no string, is empty or too long, or if there is no template that keeps it as it is.
    """
    check_text(text)
    if not text.strip():
        raise InputError("the text is empty; give the beginning of a text, or a question")
    if not chat:
        check_length(tokenizer, text, max_tokens)
        return Sentence(text, text, ((0, 0, len(text)),), 1)
    words = text.strip()  # some templates strip, and the words are looked for
    before, *after = _chat(tokenizer, _WORDS, name).split(_WORDS)
    prompt = before + words + "".join(after)
    if len(after) != 1 or _chat(tokenizer, words, name) != prompt:
        raise InputError(f"the chat template of {name} changes {shortened(text)!r}; run without --chat")
    check_length(tokenizer, prompt, max_tokens, chat=True)
    return Sentence(text, prompt, ((len(before), text.index(words), len(words)),), 1)


def _chat(tokenizer: Any, words: str, name: str) -> str:
    """Return what a user says inside the chat template, up to where the answer begins."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise InputError(f"{name} has no chat template; run without --chat, or give a model that is made for chat")
    try:
        return str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": words}], tokenize=False, add_generation_prompt=True
            )
        )
    except TemplateError as error:
        raise InputError(f"the chat template of {name} refuses a chat: {error}") from None


def check_length(tokenizer: PreTrainedTokenizerBase, prompt: str, max_tokens: int, *, chat: bool = False) -> None:
    """Refuse a prompt of more than `max_tokens` tokens: cut off, it would lose spans or the place of the answer."""
    if len(prompt.encode()) < max_tokens:  # no token is shorter than a byte, and one more is the beginning
        return
    count = len(tokenizer(prompt, add_special_tokens=not chat, verbose=False)["input_ids"])
    if count > max_tokens:
        raise InputError(
            f"the prompt {shortened(prompt)!r} has {count:,} tokens, and the model has room for {max_tokens:,}; it is"
            " not cut, as spans would be lost: give a shorter one"
        )
