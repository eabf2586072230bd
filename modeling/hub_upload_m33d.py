# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""A folder to a hub: one commit and one tag, whatever happens on the way. Everything of ours is uploaded by this."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .errors_m33d import HubError, first_line

logger = logging.getLogger(__name__)

ATTEMPTS = 6


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises where a connection fails: httpx's, since huggingface_hub 2 httpx2's."""
    found: list[type[Exception]] = []
    for name in ("httpx2", "httpx"):
        try:
            found.append(import_module(name).TransportError)
        except ImportError:
            continue
    return tuple(found)


_TRANSPORT = _transport_errors()
_FAILURES: tuple[type[Exception], ...] = (*_TRANSPORT, OSError, RuntimeError)
_CONFLICT, _OVERLOADED = (409, 412), (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Destination:
    """Where a folder goes.

    Attributes:
        repo: "organisation/name", or "name" below the user of the token.
        kind: "model" or "space".
        revision: branch; None is the main one.
        private: whether a repository that does not exist yet is created as private; None leaves it to the hub.
        token: as huggingface_hub takes it; None is what `hf auth login` or HF_TOKEN left.
        space_sdk: of a new Space, such as "gradio".
    """

    repo: str
    kind: str = "model"
    revision: str | None = None
    private: bool | None = None
    token: str | bool | None = None
    space_sdk: str | None = None


@dataclass(frozen=True)
class Sent:
    """What came of it.

    Attributes:
        repo: "organisation/name".
        commit: that holds the folder; the branch's former one where nothing had to be changed.
        url: of the commit.
        tag: that names the commit, if one was asked for.
    """

    repo: str
    commit: str
    url: str
    tag: str | None


def send_folder(
    folder: Path,
    destination: Destination,
    message: str,
    *,
    description: str | None = None,
    replace: Sequence[str] = (),
    tag: str | None = None,
    new_tag: bool = False,
    create_pr: bool = False,
    pause: float = 1.0,
) -> Sent:
    """Upload a folder as one commit, and tag it.

    A dropped connection is tried again (large files that arrived are not sent twice); a commit by somebody else in the
    meantime is built upon, so that every commit holds one publisher's files. Nothing is visible before the commit.

    Args:
        folder: everything in it is uploaded.
        destination: repository, created where it is missing.
        message: of the commit.
        description: of the commit.
        replace: patterns of files that are removed from the repository where the folder does not have them.
        tag: name for the commit.
        new_tag: refuse a tag that exists; otherwise it keeps what it names.
        create_pr: propose the commit instead of making it.
        pause: seconds before the second attempt; each later one waits twice as long.

    Raises:
        HubError: no token, not allowed, no such place, a tag that is taken, or no answer after all attempts.
    """
    api = HfApi(token=destination.token)
    sender = _Sender(api, destination, pause)
    repo = sender.create()
    if tag is not None and new_tag and tag in sender.tags(repo):
        raise HubError(f"{repo} has a tag {tag!r} already; choose another one with --tag.")
    info = sender.commit(repo, folder, message, description, list(replace), create_pr)
    if tag is not None and not create_pr:
        sender.tag(repo, tag, info.oid)
    return Sent(repo, info.oid, str(info.commit_url), tag)


def prepare_repository(destination: Destination, pause: float = 1.0) -> str:
    """Create the repository where it is missing, and see to the token; returns the repository's full name.

    Raises:
        HubError: no token, one that may only read, not allowed, or no answer.
    """
    sender = _Sender(HfApi(token=destination.token), destination, pause)
    sender.check_token()  # for a repository that exists, the client takes any token
    return sender.create()


def has_card(repo: str, destination: Destination, pause: float = 1.0) -> bool:
    """Whether the branch of a repository has a README.md.

    Raises:
        HubError: not allowed, or no answer.
    """
    return _Sender(HfApi(token=destination.token), destination, pause).has_card(repo)


class _Sender:
    """Requests of one upload, with attempts and our errors."""

    def __init__(self, api: HfApi, to: Destination, pause: float) -> None:
        self.api, self.to, self.pause = api, to, pause

    def check_token(self) -> None:
        """Ask the hub whose token it is; of those that may write to some repositories only, nothing more is known."""
        known = self._attempt(self.api.whoami, "log in for the upload")
        role = ((known.get("auth") or {}).get("accessToken") or {}).get("role")
        if role == "read":
            raise HubError(
                f"The token may only read on {self.api.endpoint}; use one with the role write for {self.to.repo}."
            )

    def create(self) -> str:
        """Create the repository where it is missing; returns its full name."""
        options: dict[str, Any] = {"space_sdk": self.to.space_sdk} if self.to.space_sdk else {}

        def run() -> str:
            made = self.api.create_repo(
                self.to.repo, repo_type=self.to.kind, private=self.to.private, exist_ok=True, **options
            )
            if self.to.revision is not None:
                self.api.create_branch(made.repo_id, branch=self.to.revision, repo_type=self.to.kind, exist_ok=True)
            return made.repo_id

        return self._attempt(run, "create the repository")

    def tags(self, repo: str) -> list[str]:
        """Names of the repository's tags."""
        refs = self._attempt(lambda: self.api.list_repo_refs(repo, repo_type=self.to.kind), "read its tags")
        return [each.name for each in refs.tags]

    def has_card(self, repo: str) -> bool:
        """Whether the branch has a README.md."""
        found = self._attempt(
            lambda: self.api.file_exists(repo, "README.md", repo_type=self.to.kind, revision=self.to.revision),
            "look for its card",
        )
        return bool(found)

    def commit(
        self, repo: str, folder: Path, message: str, description: str | None, replace: list[str], create_pr: bool
    ) -> Any:
        """One commit on top of the newest one."""

        def run() -> Any:
            head = self.api.repo_info(repo, revision=self.to.revision, repo_type=self.to.kind).sha
            return self.api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                commit_message=message,
                commit_description=description,
                repo_type=self.to.kind,
                revision=self.to.revision,
                parent_commit=head,
                delete_patterns=replace or None,
                create_pr=create_pr,
            )

        return self._attempt(run, "upload the files")

    def tag(self, repo: str, tag: str, commit: str) -> None:
        """Name the commit."""

        def run() -> None:
            self.api.create_tag(repo, tag=tag, revision=commit, repo_type=self.to.kind, exist_ok=True)

        self._attempt(run, f"create the tag {tag!r} (the files are there, in commit {commit})")

    def _attempt(self, run: Any, what: str) -> Any:
        for number in range(ATTEMPTS):
            try:
                return run()
            except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
                last: Exception = error
                if not _worth_another(error):
                    raise self._error(error, what) from error
            except _FAILURES as error:
                last = error
                if not _dropped(error):
                    raise self._error(error, what) from error
            if number + 1 < ATTEMPTS:
                wait = self.pause * 2**number
                logger.warning("Could not %s of %s: %s. Again in %g s.", what, self.to.repo, first_line(last), wait)
                time.sleep(wait)
        raise HubError(
            f"Could not {what} of {self.to.repo} on {self.api.endpoint} in {ATTEMPTS} attempts: {first_line(last)}. "
            "Nothing is half published; the same command goes on with the large files that have arrived."
        ) from last

    def _error(self, error: Exception, what: str) -> HubError:
        where = f"{self.to.repo} on {self.api.endpoint}"
        refused = _refusal(error)
        status = getattr(getattr(refused, "response", None), "status_code", None)
        if isinstance(error, HFValidationError):
            return HubError(f"{self.to.repo!r} is no name of a repository ({first_line(error)}); write ORG/NAME.")
        if isinstance(error, OfflineModeIsEnabled):
            return HubError(f"Could not {what} of {where}: HF_HUB_OFFLINE is set; unset it to publish.")
        if isinstance(error, LocalTokenNotFoundError) or status == 401:
            return HubError(
                f"Could not {what} of {where}: the hub does not accept the token, or there is none. Log in with "
                "`hf auth login` or set HF_TOKEN to a token that may write; never write it into a file of the run."
            )
        if status == 403:
            return HubError(
                f"Could not {what} of {where}: the token may not write there ({first_line(refused or error)}). Use a "
                "token with the role write that reaches this organisation, or another name."
            )
        if isinstance(error, RepositoryNotFoundError):
            return HubError(f"{where} does not exist, or the token may not see it; check the name and the token.")
        if isinstance(error, RevisionNotFoundError):
            return HubError(f"{where} has no revision {self.to.revision!r}.")
        why = "" if refused is None or refused is error else f" The hub's answer: {first_line(refused)}"
        return HubError(f"Could not {what} of {where}: {first_line(error)}{why}")


def _refusal(error: BaseException | None) -> HfHubHTTPError | None:
    """The hub's own answer among the causes of an error: of large files the client tells only that it failed."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__ or error.__context__
    return error


def _worth_another(error: Exception) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in (*_CONFLICT, *_OVERLOADED)


def _dropped(error: BaseException | None) -> bool:
    """Whether an error comes of a connection, also where the client has wrapped it."""
    while error is not None:
        if isinstance(error, (*_TRANSPORT, ConnectionError, TimeoutError)) or _worth_another(error):  # type: ignore[arg-type]
            return True
        error = error.__cause__ or error.__context__
    return False
