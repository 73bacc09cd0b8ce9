"""The exceptions a user may see: one line that says what was given, what is wanted, and what to do."""

from __future__ import annotations


class AudioBertError(Exception):
    """Base of all errors that are the input's fault; the command line prints the message and exits with `exit_code`."""

    exit_code = 2


class InputError(AudioBertError):
    """A text, an option or a file that was given is not of the form that is wanted."""


class ArtefactError(AudioBertError):
    """A weights file, a bank or a folder on disk is missing, damaged, or made by something else than is at hand."""


class MissingExtraError(AudioBertError):
    """An optional library is not installed.

    >>> str(MissingExtraError("faiss", "scale"))
    "this needs the library 'faiss': pip install 'audiobert[scale]'"
    """

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"this needs the library '{library}': pip install 'audiobert[{extra}]'")


class RemoteError(AudioBertError):
    """A server (a hub, a language-model endpoint) did not do its part; what was done so far is kept."""

    exit_code = 1
