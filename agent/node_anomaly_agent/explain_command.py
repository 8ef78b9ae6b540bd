"""`anomaly-agent explain`: asks the agent that runs why its score is what it is, for people and as JSON."""

from __future__ import annotations

import base64
import http.client
import json
import math
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from node_anomaly_agent.bounded_file import read_given
from node_anomaly_agent.config_values import Address
from node_anomaly_agent.units import OUTGROWN, UNKNOWN, format_value, printable
from node_anomaly_core.errors import AnomalyError

NORMAL, ANOMALOUS, NOT_WARM = 0, 2, 3
TIMEOUT_S = 10.0
MOST_BYTES = 1 << 20
MOST_OF_A_MODEL = 3
MOST_OF_A_PASSWORD = 4096
_ARROWS = {"above": "\N{UPWARDS ARROW}", "below": "\N{DOWNWARDS ARROW}"}
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104  # recognised, not bound


class ExplainError(AnomalyError):
    """The agent could not be asked, or its answer is none."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the agent answers, and as whom to ask. `password_file` holds one line."""

    url: str
    user: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None


def local_url(listens: Address) -> str:
    """Where an agent that listens there is reached from its own node."""
    host = "127.0.0.1" if listens.host in _EVERYWHERE else listens.host
    return f"http://{Address(host, listens.port)}"


def ask(access: Access) -> Mapping[str, Any]:
    """The document of /api/v1/explain. Raises ExplainError, which says what to do."""
    url = access.url.rstrip("/") + "/api/v1/explain"
    if not url.startswith(("http://", "https://")):
        raise ExplainError(f"{access.url} is no address of an agent", "--url http://HOST:9917")
    try:
        request = urllib.request.Request(url, headers=_headers(access))  # noqa: S310  # http or https, see above
        with _within(TIMEOUT_S), _opener(access).open(request, timeout=TIMEOUT_S) as answer:
            content = answer.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refused(url, error.code) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ExplainError(
            f"{url} gives no answer: {printable(str(reason))}",
            "is the agent running, and on this address? --url names another, https:// one that serves TLS",
        ) from None
    return _document(url, content)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """TimeoutError if the block takes longer: a socket's own timeout begins anew at each byte.

    By a signal, so only on the main thread, where commands run.
    """

    def over(*_: object) -> None:
        raise TimeoutError(f"not within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _headers(access: Access) -> dict[str, str]:
    if not access.user:
        return {}
    if access.password_file is None:
        raise ExplainError("--user without a password", "--password-file FILE")
    try:
        content = read_given(access.password_file, MOST_OF_A_PASSWORD)
        if len(content) > MOST_OF_A_PASSWORD:
            raise ValueError(f"more than {MOST_OF_A_PASSWORD} bytes")  # told as below
        password = content.decode("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ExplainError(
            f"{access.password_file}: {error}", "name a file that this user can read"
        ) from None
    pair = base64.b64encode(f"{access.user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _opener(access: Access) -> urllib.request.OpenerDirector:
    """No proxy stands between a node and itself, and an agent sends nobody elsewhere."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _NoRedirect()]
    if access.ca_file is not None:
        try:
            context = ssl.create_default_context(cafile=str(access.ca_file))
        except (OSError, ValueError) as error:
            raise ExplainError(f"{access.ca_file}: {error}", "name a file of PEM certificates") from None
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """Not followed: credentials go to the address that was named, and nowhere else."""
        return


def _refused(url: str, code: int) -> ExplainError:
    if code in (401, 403):
        return ExplainError(f"{url} refuses who asks ({code})", "--user NAME --password-file FILE")
    if code == 404:
        return ExplainError(
            f"{url} is not there (404)", "is that an anomaly-agent, and as new as this command?"
        )
    return ExplainError(f"{url} answers {code}", "see the agent's log")


def _document(url: str, content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content) if len(content) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("features"), list):
        raise ExplainError(
            f"{url} answers with something else than an explanation", "is that an anomaly-agent?"
        )
    return cast("Mapping[str, Any]", found)


def exit_code(document: Mapping[str, Any]) -> int:
    """As that of --once: 0 normal, 2 anomalous, 3 not warm."""
    if math.isnan(_number(document.get("score"))):
        return NOT_WARM
    return ANOMALOUS if document.get("anomalous") is True else NORMAL


def render(document: Mapping[str, Any], top: int) -> str:
    """The explanation for people: the verdict, the `top` features, and what each model alone says."""
    score, verdict = _number(document.get("score")), exit_code(document)
    words = {NORMAL: "normal", ANOMALOUS: "ANOMALOUS", NOT_WARM: "no score yet: the agent is not warm"}
    if document.get("outgrown") is True:
        words[NORMAL] = f"not recovered, {OUTGROWN}"
    lines = [f"score {_digits(score)} (1.0 is the alarm threshold): {words[verdict]}", ""]
    features = [one for one in document["features"] if isinstance(one, Mapping)]
    shown = [one for one in features if verdict != NOT_WARM and _number(one.get("share")) > 0][:top]
    rows: list[tuple[str, ...]] = [("WHY", "SHARE", "OBSERVED", "EXPECTED")]
    rows += [_reason(one) for one in (shown or features[:top])]
    lines += _table(rows)
    models, blamed = document.get("models"), document.get("features_by_model")
    if isinstance(models, Mapping) and models:
        rows = [("MODEL", "SCORE", "ITS OWN REASONS")]
        of_model = blamed if isinstance(blamed, Mapping) else {}
        rows += [
            (printable(str(name)), _digits(_number(said)), _first(of_model.get(name)))
            for name, said in models.items()
        ]
        lines += ["", *_table(rows)]
    return "\n".join(lines) + "\n"


def _reason(one: Mapping[str, Any]) -> tuple[str, ...]:
    name, unit = printable(str(one.get("feature", ""))), str(one.get("unit", ""))
    share = _number(one.get("share"))
    return (
        f"{name} {_ARROWS.get(str(one.get('direction')), '')}".rstrip(),
        UNKNOWN if math.isnan(share) else f"{100 * share:.0f} %",
        printable(format_value(_number(one.get("observed")), unit)),
        printable(format_value(_number(one.get("expected")), unit)),
    )


def _first(shares: object) -> str:
    if not isinstance(shares, Mapping):
        return UNKNOWN
    first = list(shares.items())[:MOST_OF_A_MODEL]
    return (
        "  ".join(f"{printable(str(name))} {100 * _number(share):.0f} %" for name, share in first) or UNKNOWN
    )


def _number(value: object) -> float:
    """What is not known is NaN, not 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits is no measurement
        return math.nan


def _digits(value: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:.2f}"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
