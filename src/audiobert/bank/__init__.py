"""Build, search, verify and merge banks: clips with their metadata and vectors, on disk."""

from __future__ import annotations

from audiobert.bank.audio_bank import AudioBank, VerifyReport, verify_bank
from audiobert.bank.build import BuildReport, build_bank
from audiobert.bank.clips import Clip
from audiobert.bank.encode import ClipEncoder
from audiobert.bank.identity import check_identity
from audiobert.bank.merge import export_bank, merge_banks

__all__ = [
    "AudioBank",
    "BuildReport",
    "Clip",
    "ClipEncoder",
    "VerifyReport",
    "build_bank",
    "check_identity",
    "export_bank",
    "merge_banks",
    "verify_bank",
]
