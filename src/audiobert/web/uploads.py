"""Receive sound files that visitors upload: checked when they come in, kept for half an hour."""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from audiobert.audio import MEASURED_SECONDS
from audiobert.bank.sources import AUDIO_EXTENSIONS
from audiobert.decoding import decode_samples
from audiobert.errors import InputError

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_UPLOAD_BYTES = 20 << 20
KEPT_UPLOADS = 50  # 1 GB at most
KEPT_SECONDS = 1_800
_WANTED = f"give a WAV, FLAC, Ogg, MP3 or AIFF file of up to {MAX_UPLOAD_BYTES >> 20} MB"


class TooLargeError(InputError):
    """An upload is larger than the page takes."""


async def receive_sound(request: Request, uploads: Path) -> list[str]:
    """Take an uploaded sound file into the folder of uploads, as `keep_sound` does; decoding runs in a thread."""
    from starlette.concurrency import run_in_threadpool
    from starlette.formparsers import MultiPartException

    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > MAX_UPLOAD_BYTES + (16 << 10):
        raise TooLargeError(f"The file is too large; {_WANTED}.")
    try:
        async with request.form(max_files=1, max_fields=1) as form:
            file: Any = next(iter(form.values()), None)
            if file is None or isinstance(file, str):
                raise InputError(f"The upload holds no file; {_WANTED}.")
            content = await file.read()
            name = PurePath(str(file.filename or "").replace("\\", "/")).name
    except MultiPartException as error:
        raise InputError(f"The upload cannot be read ({error.message}); {_WANTED}.") from None
    return [str(await run_in_threadpool(keep_sound, content, name, uploads))]


def keep_sound(content: bytes, name: str, uploads: Path) -> Path:
    """Write an uploaded sound file into the folder of uploads, under a name made from its content.

    TooLargeError if it is too large, InputError if it is no sound file.
    """
    suffix = PurePath(name).suffix.lower()
    if len(content) > MAX_UPLOAD_BYTES:
        raise TooLargeError(f"The file is too large; {_WANTED}.")
    if suffix not in AUDIO_EXTENSIONS:
        raise InputError(f"“{name or 'the upload'}” is no sound file; {_WANTED}.")
    try:
        decode_samples(io.BytesIO(content), name, max_seconds=MEASURED_SECONDS)
    except InputError:
        raise InputError(f"“{name}” cannot be decoded; {_WANTED}.") from None
    make_room(uploads)
    folder = uploads / hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"sound{suffix}"
    path.write_bytes(content)
    return path


def make_room(uploads: Path) -> None:
    """Remove uploads older than half an hour, and the oldest beyond those that are kept at most."""
    ages = sorted((time.time() - folder.stat().st_mtime, folder) for folder in uploads.iterdir() if folder.is_dir())
    for place, (age, folder) in enumerate(ages, start=1):
        if age > KEPT_SECONDS or place >= KEPT_UPLOADS:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def calling_it(file: str | Path, name: str) -> Iterator[None]:
    """Replace a recording's place on the server by `name` in error messages."""
    try:
        yield
    except InputError as error:
        message = str(error).replace(f"{file}: {Path(file).name}", name).replace(str(file), name)
        raise InputError(message) from None
