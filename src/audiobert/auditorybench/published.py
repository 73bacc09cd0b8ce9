"""Hold facts about AuditoryBench as published: where its files are, their checksums, and the paper's Table I."""

from __future__ import annotations

from dataclasses import dataclass

REPOSITORY = "HJ-Ok/AudioBERT"
# The two commits whose files are right: at the first, the animal train file is byte for byte the test file; the second
# publishes the right one in another layout.
COMMIT = "4fc71aee2dd209093614d80dcc0b2428f8c51bf2"
COMMIT_OF_ANIMAL_TRAIN = "2e2ff11d09d434e264a20cdf5299f51a6f68465f"


@dataclass(frozen=True)
class PublishedFile:
    """Describe one file of the benchmark; captions and words are those of the paper's Table I."""

    task: str
    split: str
    name: str  # in the folder; `comparsion` is the publisher's spelling
    commit: str
    path: str  # in the public repository
    sha256: str | None  # of the bytes as published; None where only the rows are known
    rows_sha256: str | None  # digest by `data.rows_sha256`; None where it is not known
    captions: int
    words: int


def _file(
    task: str, split: str, captions: int, words: int, *, sha256: str | None = None, rows: str | None = None
) -> PublishedFile:
    name = f"{'animal_sound_recognition' if task == 'animal' else 'sound_pitch_comparsion'}_{split}.csv"
    commit, path = COMMIT, f"dataset/{name}"
    if (task, split) == ("animal", "train"):
        commit, path = COMMIT_OF_ANIMAL_TRAIN, "dataset/animal_sound_recognition/train.csv"
    return PublishedFile(task, split, name, commit, path, sha256, rows, captions, words)


FILES: tuple[PublishedFile, ...] = (
    _file("animal", "train", 4211, 39024, rows="0b641fc350e92df61efd4e5e334bce604358dbddce9ac6f0c47bcd6e60ca3df0"),
    _file("animal", "dev", 593, 5567, sha256="aa0dafc049362001036cfd7deae393d2dc1598c4729465783562606532408865"),
    _file("animal", "test", 1211, 11268, sha256="97ac96eb193210a8f784499c0730fc9cc3a9b226a699d2e16c5f1ad7d3568721"),
    _file("animal", "wiki", 197, 1381, sha256="df9ae08661b758b538d3a82945a4a1c2892cf9cd47e7f9e8f8a11ba3ff981924"),
    _file("pitch", "train", 8312, 151081, sha256="8bac045736ba081f09dbbdd37ea2821bd00126baec26f458393a7db24ec02eeb"),
    _file("pitch", "dev", 1178, 21343, sha256="2fd28e5f1ea70e678238f35d0dbee9dea1e113f43e28519a62349c94743e8d75"),
    _file("pitch", "test", 2387, 43431, sha256="4c6d34142861b57380bf1fb591adc7a7cb2d852a8f1faf2d81b92be3f55ccf86"),
    _file("pitch", "wiki", 3625, 44987, sha256="a1fb94da5bf50b6f5168e0f38ca731fa6239a1484cbc95f70d600ccc4947185b"),
)


def published_file(task: str, split: str) -> PublishedFile | None:
    """Return the published file of a task and split; None for a task of another benchmark."""
    return next((file for file in FILES if (file.task, file.split) == (task, split)), None)
