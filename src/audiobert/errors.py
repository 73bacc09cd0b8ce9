"""Define the exceptions a user may see: one line that says what was given, what is wanted, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement


class AudioBertError(Exception):
    """Base of all errors that are the input's fault; the command line prints the message and exits with `exit_code`."""

    exit_code = 2


class InputError(AudioBertError):
    """A text, an option or a file that was given is not of the form that is wanted."""


class ArtefactError(AudioBertError):
    """A weights file, a bank or a folder on disk is missing, damaged, or made by something else than is at hand."""


class MissingExtraError(AudioBertError):
    """An optional library is not installed; the message says how to install its extra, wherever the package came from.

    >>> str(MissingExtraError("faiss", "scale"))
    "this needs the library 'faiss' (extra 'scale'): pip install 'faiss-cpu>=1.9' 'ray[data]>=2.40' 'datasets>=4'"
    """

    def __init__(self, library: str, extra: str | None = None) -> None:
        wanted = " ".join(f"'{one}'" for one in _requirements(extra) or [library])
        of = f" (extra '{extra}')" if extra else ""
        super().__init__(f"this needs the library '{library}'{of}: pip install {wanted}")


def _requirements(extra: str | None) -> list[str]:
    """Return what an extra installs. An index may lack this package, so its own name is no advice."""
    try:
        given = [Requirement(text) for text in requires("audiobert") or ()]
    except PackageNotFoundError:  # run from a source tree that is not installed
        return []
    return [
        f"{one.name}{'[' + ','.join(sorted(one.extras)) + ']' if one.extras else ''}{one.specifier}"
        for one in given
        if extra and one.marker and one.marker.evaluate({"extra": extra})
    ]


@contextmanager
def needs(library: str, extra: str | None = None) -> Iterator[None]:
    """Turn a failed import of an optional library into the advice to install it."""
    try:
        yield
    except ImportError:
        raise MissingExtraError(library, extra) from None


class RemoteError(AudioBertError):
    """A server (a hub, a language-model endpoint) did not do its part; what was done so far is kept."""

    exit_code = 1


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a device's way, or the host's, to say that memory ran out.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    >>> out_of_memory(RuntimeError("shapes do not fit"))
    False
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)
