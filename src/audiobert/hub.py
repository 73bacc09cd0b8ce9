"""Fetch models from the Hugging Face hub, and upload them; each of its faults is one line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging

from audiobert.errors import ArtefactError, InputError, RemoteError

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class HubAccess:
    """Options of reading the hub; see `AudioBert.from_pretrained`."""

    cache_dir: str | Path | None = None
    local_files_only: bool = False
    token: str | bool | None = None


def is_hub_id(name: str) -> bool:
    """Tell whether a name has the form of a hub id with its owner.

    >>> is_hub_id("someone/audiobert-mini"), is_hub_id("./someone/model"), is_hub_id("mini")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(name) is not None


def fetch(name: str, files: Sequence[str], revision: str | None = None, access: HubAccess | None = None) -> Path:
    """Return the folder with a model's files that match the patterns, fetched from the hub or from the local cache.

    ArtefactError if there is no such model or revision (commit, tag or branch), RemoteError if the hub cannot be
    reached or refuses.
    """
    access = access or HubAccess()
    with _faults(name, revision, f"could not fetch {name} from the hub"):
        snapshot = HfApi(token=access.token).snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(files),
            cache_dir=access.cache_dir,
            local_files_only=access.local_files_only,
        )
    return Path(snapshot)


class HubRepository:
    """A repository to upload to, with the options of `AudioBert.push_to_hub`; it is made where it does not exist."""

    def __init__(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> None:
        if not isinstance(repo_id, str) or not (is_hub_id(repo_id) or is_hub_id(f"owner/{repo_id}")):
            raise InputError(f"the repository is {repo_id!r}; give owner/name, such as someone/audiobert-mini")
        self._api, self._revision, self._create_pr = HfApi(token=token), revision, create_pr
        self.repo_id = repo_id
        with self._faults("make"):
            self.repo_id = self._api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision and not create_pr:
                self._api.create_branch(self.repo_id, branch=revision, exist_ok=True)

    def read_text(self, name: str) -> str | None:
        """Return the content of a text file, or None where there is none."""
        with self._faults("read"):
            if not self._api.file_exists(self.repo_id, name, revision=self._revision):
                return None
            file = self._api.hf_hub_download(self.repo_id, name, revision=self._revision)
        return Path(file).read_text(encoding="utf-8")

    def commit(self, folder: Path, message: str, *, replaced: Collection[str] = ()) -> str:
        """Upload a folder's files in one commit and return the commit's address, or the pull request's.

        Of the repository's folders that `replaced` names, files that were not uploaded are removed.
        """
        with self._faults("upload to"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")  # the bank's clips
            commit = self._api.upload_folder(
                repo_id=self.repo_id,
                folder_path=folder,
                commit_message=message,
                revision=self._revision,
                create_pr=self._create_pr,
                delete_patterns=[f"{name}/*" for name in replaced],
            )
        return str(commit.pr_url or commit.commit_url)

    def _faults(self, doing: str) -> AbstractContextManager[None]:
        return _faults(self.repo_id, self._revision, f"could not {doing} {self.repo_id} on the hub")


@contextmanager
def _faults(name: str, revision: str | None, failed: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line of ours, and keep its retries quiet."""
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        yield
    except RevisionNotFoundError:
        raise ArtefactError(f"{name} has no revision {revision!r} on the hub; give a commit, tag or branch") from None
    except GatedRepoError:
        raise RemoteError(f"{name} is gated: accept its terms on the hub and log in (hf auth login)") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ArtefactError(
            f"{name!r} is no folder here and no model on the hub that can be read without logging in; check the name"
        ) from None
    except LocalEntryNotFoundError:
        raise RemoteError(
            f"{name} is no folder here and not in the local cache, and the hub cannot be reached; go online once, or"
            " give a folder"
        ) from None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise RemoteError(
                f"{failed}: this needs a token that may do it; log in (hf auth login) or give token"
            ) from None
        raise RemoteError(f"{failed}: {first_line(error)}; try again") from None
    except Exception as error:  # of the HTTP library below the hub's client
        raise RemoteError(f"{failed}: {first_line(error)}; try again") from None
    finally:
        hub_logging.set_verbosity(verbosity)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
