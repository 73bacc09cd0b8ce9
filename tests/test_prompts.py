"""Prompts: blanks, templates of tasks and of chats, and where the spans of a user's words stand in them."""

import pytest

from audiobert.errors import InputError
from audiobert.prompts import BLANK, blank_template, fill_template, read_blank, read_prompt
from tiny_causal import STRIPPED, SYSTEM, causal_tokenizer

TEXT = "A [MASK] meows, and the bell rings"
SPANS = [(9, 14), (20, 28)]


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("Fill: {blank}\nAnswer:", ["meows", "the bell"]),
        ("{text} and {blank}", ["meows", "the bell"]),
        ("{choices}\nbells, meows: {blank}", ["meows", "the bell"]),
        ("A story begins: {stem}", []),
        ("{brackets} {blank} {", ["meows", "the bell"]),
        ("nothing of it", []),
    ],
)
def test_spans_stand_in_a_filled_template_where_their_words_do(template, shown):
    prompt, spans = fill_template(template, TEXT, SPANS, "A. bell\nB. meows")
    assert [prompt[slice(*span)] for span in spans] == shown
    assert "{blank}" not in prompt
    assert (BLANK in prompt) == ("{blank}" in template)


def test_a_stem_keeps_the_spans_before_its_mask():
    prompt, spans = fill_template("So: {stem}", "The meow of a [MASK] is a sound", [(4, 8), (22, 30)])
    assert prompt == "So: The meow of a"
    assert [prompt[slice(*span)] for span in spans] == ["meow"]


@pytest.mark.parametrize("mask", ["[MASK]", "[mask]", "[Mask]"])
def test_a_blank_moves_what_stands_around_it(mask):
    text = f"meow: a {mask} says 🐱 meow"
    sentence = read_blank(causal_tokenizer(beginning=True), text, 256)
    assert sentence.text == blank_template().format(blank=f"meow: a {BLANK} says 🐱 meow")
    for start, word in ((0, "meow"), (text.rindex("meow"), "meow"), (text.index("🐱"), "🐱")):
        moved = sentence.to_text(start, start + len(word))
        assert sentence.text[slice(*moved)] == word
        assert sentence.to_original(*moved) == (start, start + len(word))


@pytest.mark.parametrize("template", [SYSTEM, STRIPPED])
@pytest.mark.parametrize(
    "text", ["You hear a sound.", "  meow\n", "assistant", "user", "<s>user", "{{ 1 }}", "s", "a {% if %} meow 🐱"]
)
def test_in_a_chat_template_the_words_are_the_users_own(template, text):
    tokenizer = causal_tokenizer(beginning=True, template=template)
    sentence = read_prompt(tokenizer, text, 256, chat=True)
    wanted = tokenizer.apply_chat_template(
        [{"role": "user", "content": text.strip()}], tokenize=False, add_generation_prompt=True
    )
    assert sentence.text == wanted
    words = text.strip()
    start = text.index(words)
    place = sentence.to_text(start, start + len(words))
    assert sentence.text[slice(*place)] == words
    # What stands before the words is what the template alone puts there.
    assert tokenizer.apply_chat_template(
        [{"role": "user", "content": "!?" + words}], tokenize=False, add_generation_prompt=True
    ).startswith(sentence.text[: place[0]] + "!?")


@pytest.mark.parametrize(
    ("template", "text", "message"),
    [
        (None, "meow", "has no chat template"),
        ("{{ raise_exception('no users here') }}", "meow", "no users here"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "meow", "changes 'meow'"),
        ("{% for m in messages %}{{ m['content'] }} {{ m['content'] }}{% endfor %}", "meow", "changes 'meow'"),
        ("hello", "meow", "changes 'meow'"),
        (SYSTEM, " \n", "the text is empty"),
        (SYSTEM, 5, "is of type int"),
        (SYSTEM, "meow " * 400, "and the model has room for 256"),
    ],
)
def test_a_chat_that_cannot_be_asked_is_one_line(template, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_prompt(causal_tokenizer(beginning=False, template=template), text, 256, chat=True, name="toy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_prompt, read_blank])
def test_a_text_that_fits_is_taken_whole_and_a_longer_one_is_refused(read):
    tokenizer = causal_tokenizer(beginning=True)
    words = "A [MASK] " + "meow " * 60
    count = len(tokenizer(read(tokenizer, words, 10_000).text)["input_ids"])
    assert read(tokenizer, words, count).original == words
    with pytest.raises(InputError, match=f"has {count} tokens, and the model has room for {count - 1}"):
        read(tokenizer, words, count - 1)
    emoji = "[MASK]" + "🐱" * 60  # more tokens than characters
    with pytest.raises(InputError, match="has room for"):
        read(tokenizer, emoji, len(read(tokenizer, emoji, 10_000).text))
