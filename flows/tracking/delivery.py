"""How a delivery to MLflow ended. A store that is away, slow or refuses is a status, never an end of training."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import requests
import urllib3
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from p2o_core.schemas import BadInput

ATTEMPT_S = 10.0
"""After so many seconds an attempt starts no further request: with one request's time-out (5 s, set in
flows/lifecycle/environment.py) it holds training for 15 s at most."""
CREDENTIALS = re.compile(r"//[^/@\s]+@")
MAX_REASON = 200


class OutOfTime(Exception):
    """The attempt took ``ATTEMPT_S``: the store answers, but too slowly to wait for."""


class Timed:
    """A client that asks ``check`` before each of its methods."""

    def __init__(self, client: object, check: Callable[[], None]) -> None:
        self._client = client
        self._check = check

    def __getattr__(self, name: str) -> Any:
        self._check()
        return getattr(self._client, name)


STORE_ERRORS = (MlflowException, OSError, SQLAlchemyError, OutOfTime)
"""What a store does when it cannot be reached or says no: HTTP, artefact upload, database, our own limit."""


class DeliveryStatus(StrEnum):
    DELIVERED = "delivered"
    UNREACHABLE = "unreachable"  # refused connection, no such host
    TIMEOUT = "timeout"  # accepted, and never answered
    SERVER_ERROR = "server_error"  # 5xx, or junk instead of an answer
    REFUSED = "refused"  # 4xx: another attempt will not help until somebody acts
    SLOW = "slow"  # answers, but not all of them within ATTEMPT_S


@dataclass(frozen=True)
class Delivery:
    """``logged``: iterations delivered by this attempt; ``waiting``: those on disk that the store does not have, at
    most so many where it could not be asked what it has (``asked`` is False)."""

    status: DeliveryStatus
    logged: int = 0
    waiting: int = 0
    asked: bool = True
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.status is DeliveryStatus.DELIVERED

    def __str__(self) -> str:
        """What is said about a failure.

        >>> print(Delivery(DeliveryStatus.TIMEOUT, waiting=2, asked=False, reason="no answer"))
        MLflow: timeout (no answer); up to 2 iterations are waiting on disk
        """
        if self.ok:
            return f"MLflow: {_iterations(self.logged)} delivered"
        are = "is" if self.waiting == 1 else "are"
        at_most = "" if self.asked else "up to "
        return f"MLflow: {self.status} ({self.reason}); {at_most}{_iterations(self.waiting)} {are} waiting on disk"


KINDS: dict[type[Exception], DeliveryStatus] = {
    OutOfTime: DeliveryStatus.SLOW,
    requests.exceptions.Timeout: DeliveryStatus.TIMEOUT,
    urllib3.exceptions.ReadTimeoutError: DeliveryStatus.TIMEOUT,  # requests calls it a ConnectionError after retries
    requests.exceptions.RetryError: DeliveryStatus.SERVER_ERROR,  # a 5xx or 429 after the last retry
    requests.exceptions.ConnectionError: DeliveryStatus.UNREACHABLE,
}


def _iterations(number: int) -> str:
    return f"{number} iteration{'' if number == 1 else 's'}"


@contextmanager
def store_needed(store: str, consequence: str) -> Iterator[None]:
    """For commands that cannot do without the store at this address. Raises BadInput where it is away or refuses;
    ``consequence`` goes on after "MLflow is away …" and ends with the mend."""
    try:
        yield
    except STORE_ERRORS as error:
        status, reason = failure(error, store)
        raise BadInput(f"MLflow: {status} ({reason}){consequence}") from error


def failure(error: Exception, store: str) -> tuple[DeliveryStatus, str]:
    """Status and reason of what the store at this address raised. MLflow wraps requests' errors, so the causes are
    looked through; passwords in addresses are left out."""
    status, words = _status(error), " ".join(str(error).split())
    reason = {
        DeliveryStatus.SLOW: f"answers too slowly, not done after {ATTEMPT_S:.0f} s",
        DeliveryStatus.TIMEOUT: "no answer in time",
        DeliveryStatus.UNREACHABLE: "no connection",
    }.get(status, words)
    return status, CREDENTIALS.sub("//", f"{store}: {reason}")[:MAX_REASON]


def _status(error: Exception) -> DeliveryStatus:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for kind, status in KINDS.items():
        if any(isinstance(link, kind) for link in chain):
            return status
    if isinstance(error, MlflowException) and error.get_http_status_code() < 500:
        return DeliveryStatus.REFUSED
    return DeliveryStatus.SERVER_ERROR
