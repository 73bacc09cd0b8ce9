"""Tell from a file's extension what it holds."""

from __future__ import annotations

from pathlib import PurePath

AUDIO_EXTENSIONS = frozenset(
    f".{extension}"
    for extension in (
        *("wav", "wave", "rf64", "w64", "flac", "ogg", "oga", "opus"),
        *("mp3", "mp2", "mpga", "aif", "aiff", "aifc", "au", "snd", "caf", "voc"),
    )
)
# Sound, or video with sound, that libsndfile does not decode.
UNSUPPORTED_EXTENSIONS = frozenset(
    f".{extension}"
    for extension in (
        *("m4a", "m4b", "aac", "mp4", "m4v", "mov", "3gp", "wma", "wmv", "asf", "amr", "ac3", "dts", "ra", "rm"),
        *("mka", "mkv", "weba", "webm", "avi", "ape", "wv", "tta", "mpc", "tak", "spx", "dsf", "dff", "mid", "midi"),
    )
)
SHARD_EXTENSIONS = (".tar", ".tar.gz", ".tgz")


def is_audio(name: str) -> bool:
    """Return whether a name has an extension of sound that can be decoded, or of sound that cannot."""
    return PurePath(name).suffix.lower() in AUDIO_EXTENSIONS | UNSUPPORTED_EXTENSIONS


def is_shard(name: str) -> bool:
    """Return whether a name has an extension of a tar shard."""
    return name.lower().endswith(SHARD_EXTENSIONS)


def format_problem(name: str) -> tuple[str, str] | None:
    """Return why a sound file is not decoded here, or None.

    >>> format_problem("dog.m4a")
    ('format', "the format '.m4a' is not supported; convert it first: ffmpeg -i dog.m4a dog.flac")
    """
    path = PurePath(name)
    if path.suffix.lower() not in UNSUPPORTED_EXTENSIONS:
        return None
    command = f"ffmpeg -i {path.name} {path.with_suffix('.flac').name}"
    return "format", f"the format '{path.suffix}' is not supported; convert it first: {command}"
