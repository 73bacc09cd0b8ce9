"""Hold the models and banks that a page may use: named at the start, loaded when first chosen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from audiobert.bank import AudioBank, Clip
from audiobert.errors import InputError

if TYPE_CHECKING:
    from audiobert.pipeline import AudioBert

OWN_BANK = "the model's own"


@dataclass(frozen=True)
class OpenedBank:
    """A bank on the shelf: its name in addresses, and the folder that its audio lies in, if it does anywhere."""

    key: str
    bank: AudioBank
    audio_root: Path | None

    def audio_path(self, clip: Clip) -> Path | None:
        """Return where a clip's audio lies; None when it is not at hand, or not inside the bank's audio folder.

        Links are followed before that is decided.
        """
        if clip.path is None or self.audio_root is None:
            return None
        path = Path(clip.path).resolve()
        return path if path.is_relative_to(self.audio_root.resolve()) and path.is_file() else None


@dataclass(frozen=True)
class Choice:
    """A model with the bank that it searches."""

    model: AudioBert
    opened: OpenedBank


def load_model(name: str) -> AudioBert:
    """Load a model as `AudioBert.from_pretrained` does; torch comes with it."""
    from audiobert.pipeline import AudioBert

    return AudioBert.from_pretrained(name)


class Shelf:
    """Models and banks that a visitor may choose from.

    A visitor names a model or bank only by its place in these lists, so that no address or form of the page can open
    another folder.

    Parameters
    ----------
    models
        Names as `AudioBert.from_pretrained` takes them, the first being the default.
    banks
        Folders of banks beside each model's own; the first is the default, else the model's own.
    audio_root
        Where the audio of the models' own banks lies, which come without it.
    """

    def __init__(
        self,
        models: Sequence[str] = ("mini",),
        banks: Sequence[str | Path] = (),
        *,
        audio_root: str | Path | None = None,
        loader: Callable[[str], AudioBert] = load_model,
    ) -> None:
        self.models = list(models)
        self.banks = [*map(str, banks), OWN_BANK]
        if not self.models:
            raise InputError("no model: give at least one, like --model mini")
        for kind, names in (("model", self.models), ("bank", self.banks)):
            if len(set(names)) < len(names):
                raise InputError(f"a {kind} is given twice: {', '.join(names)}")
        if audio_root is not None and not Path(audio_root).is_dir():
            raise InputError(f"{audio_root} is no folder; give the one that the clips' paths start from")
        self._audio_root = Path(audio_root) if audio_root is not None else None
        self._load = loader
        self._lock = threading.Lock()
        self._loaded: dict[str, AudioBert] = {}
        self._choices: dict[tuple[str, str], Choice] = {}
        self._opened: dict[str, OpenedBank] = {}

    def choose(self, model: str | None = None, bank: str | None = None) -> Choice:
        """Return the model with the bank, the defaults where None; InputError if one is not on the shelf."""
        model, bank = model or self.models[0], bank or self.banks[0]
        if model not in self.models:
            raise InputError(f"no model {model!r} on this page; choose {', '.join(self.models)}")
        if bank not in self.banks:
            raise InputError(f"no bank {bank!r} on this page; choose {', '.join(self.banks)}")
        with self._lock:
            if (model, bank) not in self._choices:
                self._choices[model, bank] = self._make(model, bank)
            return self._choices[model, bank]

    def bank(self, key: str) -> OpenedBank | None:
        """Return a bank that was chosen before, by its key; None when there is no such."""
        return self._opened.get(key)

    def _make(self, model: str, bank: str) -> Choice:
        if model not in self._loaded:
            self._loaded[model] = self._load(model)
        loaded = self._loaded[model]
        if bank == OWN_BANK:
            key, folder, root = f"own-{self.models.index(model)}", loaded.bank.folder, self._audio_root
        else:
            key, folder, root = f"bank-{self.banks.index(bank)}", Path(bank), None
        opened = AudioBank.open(folder, audio_root=root)
        chosen = loaded.with_bank(opened, only=True)
        built_from = opened.manifest.get("audio_root")
        root = root or (Path(built_from) if built_from else None)
        self._opened[key] = OpenedBank(key, opened, root)
        return Choice(chosen, self._opened[key])
