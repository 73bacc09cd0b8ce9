"""From what a user calls a model to the adapter that answers questions.

The adapters: AudioBERT, any masked or causal language model of transformers, a chat server, and the controls. Each has
a `name`, a `kind`, `artefacts` (what it is: ids, checksums, settings) and `answer(questions, protocol)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from audiobert.auditorybench.data import Row
from audiobert.auditorybench.protocol import Prediction, ProtocolName
from audiobert.auditorybench.questions import Question
from audiobert.errors import InputError

AUDIOBERT_PRESETS = ("mini", "paper-base", "paper-large")
# What may stand behind a model's name, after a colon.
_VARIANTS: dict[str, dict[str, Any]] = {"no-audio": {"audio": False}, "gold-spans": {"spans": "gold"}}


class Adapter(Protocol):
    """What the evaluation loop knows of a model."""

    name: str
    kind: str
    artefacts: dict[str, Any]

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        """Answer all questions; yields (position in `questions`, prediction) in any order."""


@dataclass(frozen=True)
class ModelOptions:
    """What holds for all models of a run.

    `kind` (`masked`, `causal`, `audiobert`) overrides what a model's config says. With `base_url` the names are those
    of models behind that server.
    """

    kind: str | None = None
    bank: str | None = None
    device: str | None = None
    batch_size: int | None = None
    base_url: str | None = None
    chat: Mapping[str, Any] | None = None


def split_variant(name: str) -> tuple[str, dict[str, Any]]:
    """Parts `mini:no-audio` into the model and what is said of it.

    >>> split_variant("mini:no-audio")
    ('mini', {'audio': False})
    """
    base, separator, variant = name.rpartition(":")
    if separator and variant in _VARIANTS:
        return base, dict(_VARIANTS[variant])
    return name, {}


def load_model(name: str, train: Mapping[str, Sequence[Row]], options: ModelOptions | None = None) -> Adapter:
    """Load what `name` says.

    Parameters
    ----------
    name
        `mini` or a preset, a folder, a hub id, `control:majority`, `control:bag-of-words`; an AudioBERT's name may end
        in `:no-audio` or `:gold-spans`.
    train
        Train rows by task, for the controls.

    Raises
    ------
    InputError
        When there is no such model, or its kind cannot be told.
    """
    options = options or ModelOptions()
    if name.startswith("control:"):
        from audiobert.auditorybench.models.controls import make_control

        return make_control(name, train)
    if options.base_url is not None:
        from audiobert.auditorybench.models.chat import ChatModel, ChatOptions

        return ChatModel(name, ChatOptions(base_url=options.base_url, **dict(options.chat or {})))
    base, variant = split_variant(name)
    kind = options.kind or kind_of_model(base)
    sizes: dict[str, Any] = {"batch_size": options.batch_size} if options.batch_size else {}
    if kind == "audiobert":
        from audiobert.auditorybench.models.audiobert import AudioBertModel

        return AudioBertModel.from_pretrained(
            base, label=name, bank=options.bank, device=options.device, **variant, **sizes
        )
    if variant:
        raise InputError(f"'{name}': no-audio and gold-spans are for an AudioBERT, '{base}' is a {kind} language model")
    if kind == "masked":
        from audiobert.auditorybench.models.masked import MaskedLanguageModel

        return MaskedLanguageModel.from_pretrained(base, device=options.device, **sizes)
    from audiobert.auditorybench.models.causal import CausalLanguageModel

    return CausalLanguageModel.from_pretrained(base, device=options.device, **sizes)


def kind_of_model(name: str) -> str:
    """`audiobert`, `masked` or `causal`, by the folder or the model's config.

    Raises
    ------
    InputError
        When there is no such model, or its kind cannot be told.
    """
    from audiobert.auditorybench.models.loading import is_audiobert_folder, kind_of, read_config

    if name in AUDIOBERT_PRESETS:
        return "audiobert"
    folder = Path(name)
    if folder.is_dir() and is_audiobert_folder(folder):
        return "audiobert"
    kind = kind_of(read_config(name))
    if kind is None:
        raise InputError(
            f"'{name}' is neither a masked nor a causal language model by its config: say which with --kind"
        )
    return kind
