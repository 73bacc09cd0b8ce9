"""Lay out the Gradio page: three tabs on one shelf of models and banks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from audiobert.errors import AudioBertError, InputError
from audiobert.web.compare import compare_sounds, known_score
from audiobert.web.shelf import Choice, Shelf
from audiobert.web.uploads import calling_it
from audiobert.web.views import answer_view, compare_view, error_view, search_view

if TYPE_CHECKING:
    import gradio

MAX_CHARACTERS = 5_000
MAX_NAME_CHARACTERS = 200
MAX_CLIPS = 10
MAX_FOUND = 50
AT_ONCE = 2  # questions that are answered at the same time
PREDICTIONS = 8

HEADER = (
    '<header class="ab-head"><h1>AudioBERT</h1><p>A language model that knows what the world sounds like: it finds the'
    " words about sound, looks up what they sound like, and answers with that in mind.</p></header>"
)
EXAMPLES = (
    "Meow is the sound a [MASK] makes.",
    "The farmer heard a loud moo from the [MASK].",
    # No training contained these two kinds: their clips in the bank decide. (Gradio cuts a label after 60 characters.)
    "A frog sounds [MASK] than a timpani.",
    "A timpani sounds [MASK] than a frog.",
)
SEARCHES = ("a dog barking", "rain on a roof", "a low note on a cello", "church bells")
COMPARISONS = (("a flute", "a tuba"), ("a mouse squeaking", "a cow mooing"), ("a violin", "a double bass"))

_log = logging.getLogger(__name__)


def checked(text: str | None, what: str, limit: int) -> str:
    """Return the text without surrounding space; InputError if it is empty or longer than the page takes."""
    text = (text or "").strip()
    if not text:
        raise InputError(f"the {what} is empty; type one, or choose an example")
    if len(text) > limit:
        raise InputError(f"the {what} has {len(text):,} characters; the page takes up to {limit:,}")
    return text


def _clips(value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= most or value != int(value):
        raise InputError(f"the number of clips is {value!r}; give 1 to {most}")
    return int(value)


def _recording_of(words: str | None, recording: str | None) -> dict[str, str]:
    """Return the recording by the words that it stands for; InputError if one of the two is missing."""
    words = (words or "").strip()
    if recording and not words:
        raise InputError("a recording is given, but not the words that it stands for; type them as in the sentence")
    if words and not recording:
        raise InputError(f"no recording is given for “{words}”; upload one, or empty the field")
    return {words: recording} if recording else {}


class Answers:
    """Functions of the page's buttons: a form in, HTML out; errors are shown in the page."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.clips_per_span: int = shelf.choose().model.settings.retrieval.clips  # as many as in training

    def fill_mask(
        self, text: str, audio: bool, clips: float, words: str, recording: str | None, model: str, bank: str
    ) -> str:
        """Predict the masks of a sentence; a recording is injected for the words that it stands for."""

        def answer(choice: Choice) -> Callable[[float], str]:
            sentence = checked(text, "sentence", MAX_CHARACTERS)
            count = _clips(clips, self.most_clips)
            sounds = _recording_of(words, recording) if audio else {}
            with calling_it(recording or "", "your recording") if sounds else nullcontext():
                found = choice.model.fill_mask(
                    sentence, top_k=PREDICTIONS, audio=bool(audio), clips_per_span=count, sounds=sounds
                )
            floor = known_score(choice.model)
            return lambda seconds: answer_view(found, choice.opened, audio=bool(audio), floor=floor, seconds=seconds)

        return self._answer(model, bank, answer)

    @property
    def most_clips(self) -> int:
        """Clips per span that the page takes at most."""
        return max(MAX_CLIPS, self.clips_per_span)

    def search(self, query: str, top_k: float, model: str, bank: str) -> str:
        """Find clips by words."""

        def answer(choice: Choice) -> Callable[[float], str]:
            words = checked(query, "query", MAX_CHARACTERS)
            hits = choice.model.search(words, _clips(top_k, MAX_FOUND))
            floor = known_score(choice.model)
            return lambda seconds: search_view(words, hits, choice.opened, floor=floor, seconds=seconds)

        return self._answer(model, bank, answer)

    def compare(
        self, first: str, second: str, first_file: str | None, second_file: str | None, model: str, bank: str
    ) -> str:
        """Compare the pitch of two sounds."""

        def answer(choice: Choice) -> Callable[[float], str]:
            names = [
                checked(name, "name of a sound", MAX_NAME_CHARACTERS) if name and name.strip() else ""
                for name in (first, second)
            ]
            compared = compare_sounds(choice.model, names[0], names[1], files=(first_file, second_file))
            return lambda seconds: compare_view(compared, choice.opened, seconds=seconds)

        return self._answer(model, bank, answer)

    def _answer(self, model: str, bank: str, answer: Callable[[Choice], Callable[[float], str]]) -> str:
        try:
            choice = self.shelf.choose(model, bank)
            started = time.perf_counter()
            view = answer(choice)
            return view(time.perf_counter() - started)
        except AudioBertError as error:
            return error_view(str(error))
        except Exception:
            _log.exception("a question was not answered")
            return error_view("Something went wrong here; the terminal that the page was started from says more.")


def build_page(shelf: Shelf, *, queue_limit: int) -> gradio.Blocks:
    """Lay the page out; of more than `queue_limit` waiting questions, further ones are turned away with a message."""
    import gradio as gr

    answers = Answers(shelf)
    with gr.Blocks(title="AudioBERT", analytics_enabled=False, delete_cache=(600, 1800)) as page:
        gr.HTML(HEADER)
        with gr.Row():
            model = gr.Dropdown(shelf.models, value=shelf.models[0], label="Model", visible=len(shelf.models) > 1)
            bank = gr.Dropdown(shelf.banks, value=shelf.banks[0], label="Bank", visible=len(shelf.banks) > 1)
        with gr.Tabs():
            with gr.Tab("Sentence", id="sentence"):
                _sentence_tab(gr, answers, model, bank)
            with gr.Tab("Search", id="search"):
                _search_tab(gr, answers, model, bank)
            with gr.Tab("Compare", id="compare"):
                _compare_tab(gr, answers, model, bank)
    page.queue(max_size=queue_limit, default_concurrency_limit=AT_ONCE, api_open=False)  # no way past the queue
    return page


def _wire(
    gr: Any, triggers: list[Any], examples: Any, function: Callable[..., str], inputs: list[Any], output: Any
) -> None:
    """Call `function` on any of the triggers and when an example was chosen; all functions share the machine."""
    call = {
        "concurrency_id": "model",
        "concurrency_limit": AT_ONCE,
        "show_progress": "hidden",  # the page has a busy state of its own
        "trigger_mode": "always_last",
        "js": f"(...form) => (audiobertBusy('{output.elem_id}'), form)",
    }
    for answered in (
        gr.on(triggers, function, inputs, output, api_name=function.__name__, **call),
        examples.load_input_event.then(function, inputs, output, api_visibility="private", **call),
    ):
        answered.then(None, js=f"() => audiobertDone('{output.elem_id}')", show_progress="hidden")


def _upload(gr: Any, label: str, id: str) -> Any:
    """Add a slot for a sound file."""
    with gr.Column(elem_classes="ab-upload", min_width=260):
        return gr.Audio(
            label=label,
            sources=["upload"],
            type="filepath",
            editable=False,
            buttons=[],
            elem_id=id,
            elem_classes="ab-audio",
        )


def _sentence_tab(gr: Any, answers: Answers, model: Any, bank: Any) -> None:
    text = gr.Textbox(
        label="A sentence with [MASK] where a word is to be predicted",
        placeholder=EXAMPLES[0],
        lines=1,
        max_lines=6,
        elem_id="sentence-text",
    )
    button = gr.Button("Predict", variant="primary", elem_id="sentence-go")
    output = gr.HTML(elem_id="sentence-answer", elem_classes="ab-answer")
    examples = gr.Examples([[one] for one in EXAMPLES], text, label="Examples", cache_examples=False)
    with gr.Accordion("A recording of your own", open=False, elem_id="sentence-own"):
        words = gr.Textbox(
            label="The words of the sentence that it stands for", placeholder="This", elem_id="sentence-words"
        )
        recording = _upload(gr, "The recording", "sentence-file")
    with gr.Accordion("Settings", open=False, elem_id="sentence-settings"):
        audio = gr.Checkbox(True, label="Audio", info="Off: the plain language model.", elem_id="sentence-audio")
        clips = gr.Slider(
            1, answers.most_clips, answers.clips_per_span, step=1, label="Clips per span", elem_id="sentence-clips"
        )
    inputs = [text, audio, clips, words, recording, model, bank]
    triggers = [button.click, text.submit, words.submit, audio.input]
    _wire(gr, triggers, examples, answers.fill_mask, inputs, output)


def _search_tab(gr: Any, answers: Answers, model: Any, bank: Any) -> None:
    query = gr.Textbox(label="Words for a sound", placeholder=SEARCHES[0], max_lines=2, elem_id="search-text")
    button = gr.Button("Search", variant="primary", elem_id="search-go")
    output = gr.HTML(elem_id="search-answer", elem_classes="ab-answer")
    examples = gr.Examples([[one] for one in SEARCHES], query, label="Examples", cache_examples=False)
    top_k = gr.Slider(1, MAX_FOUND, 10, step=1, label="Clips")
    inputs = [query, top_k, model, bank]
    _wire(gr, [button.click, query.submit], examples, answers.search, inputs, output)


def _compare_tab(gr: Any, answers: Answers, model: Any, bank: Any) -> None:
    names, recordings = [], []
    with gr.Row():
        for number, placeholder in enumerate(COMPARISONS[0], start=1):
            with gr.Column(min_width=260):
                names.append(
                    gr.Textbox(label=f"Sound {number}", placeholder=placeholder, elem_id=f"compare-name-{number}")
                )
                recordings.append(_upload(gr, f"or a recording of sound {number}", f"compare-file-{number}"))
    button = gr.Button("Compare", variant="primary", elem_id="compare-go")
    output = gr.HTML(elem_id="compare-answer", elem_classes="ab-answer")
    examples = gr.Examples(
        [list(pair) for pair in COMPARISONS],
        names,
        label="Examples",
        cache_examples=False,
        example_labels=[f"{first} and {second}" for first, second in COMPARISONS],  # buttons, not rows of a table
    )
    inputs = [*names, *recordings, model, bank]
    triggers = [button.click, names[0].submit, names[1].submit]
    _wire(gr, triggers, examples, answers.compare, inputs, output)


def style() -> str:
    """Return the page's own style sheet."""
    return _template("page.css")


def script() -> str:
    """Return the page's own script, for its head."""
    return f"<script>{_template('page.js')}</script>"


def _template(name: str) -> str:
    return (files("audiobert.web") / "templates" / name).read_text(encoding="utf-8")
