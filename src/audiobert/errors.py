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


class InterruptedRunError(AudioBertError):
    """A person stopped the command, which can be resumed.

    A `KeyboardInterrupt` would leave typer without a message.
    """

    exit_code = 1


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a device's way, or the host's, to say that memory ran out.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    >>> out_of_memory(RuntimeError("shapes do not fit"))
    False
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)
