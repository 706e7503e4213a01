"""Errors of huggingface_hub as HubError, with messages that say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from ..errors import HubError

_OURS_TO_BLAME = (TypeError, AttributeError, NameError, KeyError, IndexError, AssertionError)


def explained(error: Exception, repository: str, name: str = "") -> Exception:
    """The HubError to raise for an error of huggingface_hub; programming errors are returned
    unchanged. ``name``: of the file in the repository, if there is one."""
    from huggingface_hub import errors

    what = f"{name} of {repository}" if name else repository
    if isinstance(error, (HubError, *_OURS_TO_BLAME)):
        return error
    chain = list(_chain(error))
    if any(isinstance(e, errors.OfflineModeIsEnabled) for e in chain):
        return HubError(
            f"{what} is not complete on this disk, and HF_HUB_OFFLINE forbids downloads. "
            "Unset HF_HUB_OFFLINE, or copy the model's directory here and give its path."
        )
    for e in chain:
        told = _answer(e, repository, name, what)
        if told:
            return HubError(told)
    if any(isinstance(e, OSError) and e.errno == errno.ENOSPC for e in chain):
        return HubError(
            f"The disk is full; the incomplete download of {what} is kept. Free some space, or "
            "choose another disk with HF_HOME, and run the same command again: it continues."
        )
    if "onsistency check failed" in str(error):
        return HubError(
            f"{what} ended early ({_first_line(error)}). Run the same command again: it continues."
        )
    return HubError(
        f"The hub at {_endpoint()} could not be reached, or the connection broke, while "
        f"downloading {what} ({type(chain[-1]).__name__}: {_first_line(chain[-1])}). The "
        "incomplete download is kept: run the same command again and it continues."
    )


def _answer(error: BaseException, repository: str, name: str, what: str) -> str | None:
    """The message for an HTTP answer of the hub; None for other errors."""
    from huggingface_hub import errors

    page = f"{_endpoint()}/{repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repository} is gated (HTTP {status}): accept its terms at {page}, then set HF_TOKEN "
            "to a token of that account, or log in with: hf auth login"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        token = (
            "the token in use may not see it"
            if _has_token()
            else "if it is private or gated, set HF_TOKEN or log in with: hf auth login"
        )
        return f"The hub has no repository {repository} (HTTP {status}); {token}. See {page}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision 'main' (HTTP {status}). See {page}"
    missing = isinstance(error, errors.EntryNotFoundError)
    if missing and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"{repository} has no file {name} (HTTP {status}). See {page}/tree/main"
    if status in (401, 403):
        token = "the token in use" if _has_token() else "access without a token"
        return (
            f"The hub refused {token} for {what} (HTTP {status}). Check HF_TOKEN (hf auth whoami) "
            f"and the terms at {page}"
        )
    if status == 429:
        return (
            f"The hub limits the rate of requests (HTTP 429) for {what}. Wait a few minutes and "
            "try again."
        )
    if isinstance(status, int) and status >= 400:
        return (
            f"The hub failed for {what} (HTTP {status}). Try again later; an incomplete download "
            "is kept."
        )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _endpoint() -> str:
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no reason given"
