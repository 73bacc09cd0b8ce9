"""Load the model that a name stands for, as an adapter that answers questions.

The adapters: AudioBERT, any masked or causal language model of transformers, a chat server, and the controls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from audiobert.auditorybench.data import Row
from audiobert.auditorybench.interfaces import Prediction, ProtocolName
from audiobert.auditorybench.questions import Question
from audiobert.errors import ArtefactError, InputError, RemoteError

# States of an AudioBERT, which follow its name after a colon; docs/benchmark.md describes them.
UNHEARD, OFF, GOLD_SPANS = ":unheard", ":off", ":gold-spans"
_STATES: dict[str, dict[str, Any]] = {
    UNHEARD: {"sound": "unheard"},
    OFF: {"sound": "off"},
    GOLD_SPANS: {"spans": "gold"},
    ":random-clips": {"clips": "random"},
    ":shuffled-clips": {"clips": "shuffled"},
    ":answer-clips": {"clips": "answer"},
    ":by-caption": {"retrieval": {"by": "caption"}},
    ":by-sound": {"retrieval": {"by": "sound"}},
    ":one-clip": {"retrieval": {"clips": 1}},
    ":no-relatives": {"retrieval": {"relatives": 0}},
}
_WANTED = "give mini, a preset, a folder, a hub id, or a control such as control:majority"


class Adapter(Protocol):
    """Interface of a model in the evaluation loop."""

    name: str
    kind: str  # `audiobert`, `masked`, `causal`, `chat` or `control`
    artefacts: dict[str, Any]

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        """Answer all questions; yield (position in `questions`, prediction) in any order."""


@dataclass(frozen=True)
class ModelOptions:
    """Hold the options that all models of a run share.

    `kind` (`masked`, `causal`, `audiobert`) overrides the model's config. With `base_url` the names are those of models
    on that server. `templated` asks causal language models through their chat templates.
    """

    kind: str | None = None
    bank: str | None = None
    device: str | None = None
    batch_size: int | None = None
    base_url: str | None = None
    chat: Mapping[str, Any] | None = None
    templated: bool = False


def split_state(name: str) -> tuple[str, dict[str, Any]]:
    """Separate `mini:unheard` into the model's name and its state, as arguments of the AudioBERT adapter.

    >>> split_state("mini:unheard")
    ('mini', {'sound': 'unheard'})
    >>> split_state("mini")
    ('mini', {})
    """
    for suffix, state in _STATES.items():
        if name.endswith(suffix):
            base, others = split_state(name.removesuffix(suffix))
            return base, {**others, **state}
    return name, {}


def load_adapter(name: str, train: Mapping[str, Sequence[Row]], options: ModelOptions | None = None) -> Adapter:
    """Load `mini` or a preset, a folder, a hub id, or a control; an AudioBERT's name may end in one of its states."""
    options = options or ModelOptions()
    if name.startswith("control:"):
        return _control(name, train)
    if options.base_url is not None:
        if options.templated:
            raise InputError("a server applies the chat template of its model by itself: leave out --chat")
        from audiobert.auditorybench.models.chat import ChatModel, ChatOptions

        return ChatModel(name, ChatOptions(base_url=options.base_url, **dict(options.chat or {})))
    base, state = split_state(name)
    kind = options.kind or kind_of_model(base)
    sizes: dict[str, Any] = {"batch_size": options.batch_size} if options.batch_size else {}
    if kind == "audiobert":
        from audiobert.auditorybench.models.audiobert import AudioBertModel

        return AudioBertModel.from_pretrained(
            base, label=name, bank=options.bank, device=options.device, chat=options.templated, **state, **sizes
        )
    if state:
        raise InputError(f"'{name}': {', '.join(_STATES)} are for an AudioBERT, '{base}' is a {kind} language model")
    if kind == "masked":
        if options.templated:
            raise InputError(f"'{name}' is a masked language model, which has no chat template; run without --chat")
        from audiobert.auditorybench.models.masked import MaskedLanguageModel

        return MaskedLanguageModel.from_pretrained(base, device=options.device, **sizes)
    if kind == "causal":
        from audiobert.auditorybench.models.causal import CausalLanguageModel

        return CausalLanguageModel.from_pretrained(base, device=options.device, chat=options.templated, **sizes)
    raise InputError(f"no kind '{kind}': there are masked, causal, audiobert")


def _control(name: str, train: Mapping[str, Sequence[Row]]) -> Adapter:
    from audiobert.auditorybench.models.controls import BagOfWords, Control, Majority
    from audiobert.auditorybench.models.text_scorers import TextScorers

    controls: dict[str, tuple[type[Control], bool]] = {
        "control:majority": (Majority, False),
        "control:bag-of-words": (BagOfWords, False),
        "control:bag-of-words-told": (BagOfWords, True),
        "control:text-scorers": (TextScorers, True),
    }
    if name not in controls:
        raise InputError(f"no control '{name}': there are {', '.join(controls)}")
    kind, told = controls[name]
    return kind(name, train, told=told)


def kind_of_model(name: str) -> str:
    """Return `audiobert`, `masked` or `causal`, by the model's config."""
    from audiobert.backbone import PRESETS, find_model, language_model_kind
    from audiobert.model_folder import is_model_folder

    if name == "mini" or name in PRESETS:
        return "audiobert"
    try:
        folder, _, _ = find_model(name, files=("config.json",))
        if is_model_folder(folder):
            return "audiobert"
        kind = language_model_kind(folder, name)
    except (ArtefactError, RemoteError) as error:
        raise type(error)(f"no model '{name}': {error}; {_WANTED}") from None
    if kind is None:
        raise InputError(
            f"'{name}' is neither a masked nor a causal language model by its config: say which with --kind"
        )
    return kind
