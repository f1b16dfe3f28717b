"""Requests over HTTP that trust nothing that comes back.

A request has one deadline for all of it, an answer has a greatest length, a redirect is not
followed, and what the server says is not repeated in an error where a secret was sent to it.
"""

import asyncio
import email.utils
import io
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from db3kd.teachers.base import TeacherError
from db3kd.teachers.extras import import_extra
from db3kd.teachers.remote.retry import RetryableError

_QUOTED = 200
"""Most bytes of a server's own words in an error."""


_ALLOWED_SECRETS = "DB3KD_ALLOW_SECRET"
"""The environment variable with the pairs of secrets and addresses that the user allows."""


@dataclass(frozen=True)
class SecretHeader:
    """A header whose value stands in an environment variable, and is kept nowhere else.

    variable  the environment variable with the whole value, such as "Bearer …"
    name      the header's name
    """

    variable: str
    name: str = "Authorization"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"header: expected a name such as Authorization, got {self.name!r}")
        self.read()

    def read(self) -> dict[str, str]:
        """The header, to send; ValueError where the variable is missing or cannot be a header."""
        value = os.environ.get(self.variable, "").strip()
        if not value:
            raise ValueError(
                f"header: expected its value in the environment variable {self.variable}, which is "
                "not set"
            )
        if not value.isascii() or not value.isprintable():
            raise ValueError(
                f"header: the environment variable {self.variable} holds characters that a header "
                "cannot"
            )
        return {self.name: value}


@dataclass(frozen=True)
class Reply:
    """An answer with status 200: its headers, by names in any case, and its body."""

    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends requests to one server. To be used within one event loop.

    connections  most of them at once
    timeout      seconds from sending a request to having read all of its answer
    secret       a header to send along
    """

    def __init__(self, connections: int, timeout: float, secret: SecretHeader | None) -> None:
        self._aiohttp = import_extra("aiohttp", "remote")
        self._connections = connections
        self._timeout = timeout
        self._secret = secret
        self._opened: Any = None

    async def get(self, url: str, most: int, who: str) -> Reply:
        """Like `post`."""
        return await self._send("GET", url, None, {}, most, who)

    async def post(
        self, url: str, content: bytes, headers: Mapping[str, str], most: int, who: str
    ) -> Reply:
        """The server's answer of at most `most` bytes; errors begin with `who`.

        Raises Unanswered where the request may be repeated, and TeacherError where that is no use.
        """
        return await self._send("POST", url, content, headers, most, who)

    async def close(self) -> None:
        """Closes all connections."""
        if self._opened is not None:
            await self._opened.close()

    def _session(self) -> Any:
        """Opened when it is first used, since it belongs to the event loop that runs then."""
        if self._opened is None:
            aiohttp = self._aiohttp
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),  # none of its own: the deadline is in _send
                # Compressed answers could grow without bound on the way.
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                # Otherwise aiohttp sends passwords of ~/.netrc and uses the environment's proxies.
                trust_env=False,
            )
        return self._opened

    async def _send(
        self,
        method: str,
        url: str,
        content: bytes | None,
        headers: Mapping[str, str],
        most: int,
        who: str,
    ) -> Reply:
        sent = {**headers, **(self._secret.read() if self._secret else {})}
        data = None if content is None else io.BytesIO(content)  # is sent piece by piece
        aiohttp = self._aiohttp
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session().request(
                    method, url, data=data, headers=sent, allow_redirects=False
                ) as response,
            ):
                if response.status == 200:
                    body = await _read(response, most, who)
                else:
                    body = await _beginning(response)
        except TimeoutError:
            raise RetryableError(f"nothing within {self._timeout:g} s", maybe_paid=True) from None
        except aiohttp.ClientSSLError as error:
            raise TeacherError(f"{who}: no secure connection ({_kind(error)})") from None
        except aiohttp.ClientConnectorError as error:
            raise RetryableError(f"no connection ({_kind(error)})", maybe_paid=False) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise RetryableError(f"connection lost ({_kind(error)})", maybe_paid=True) from None
        except aiohttp.ClientError as error:
            raise TeacherError(f"{who}: not an HTTP answer ({_kind(error)})") from None
        quiet = self._secret is not None or "?" in url  # where a key may be, too
        _refuse(response.status, response.headers, "" if quiet else _told(body), who)
        return Reply(response.headers, body)


def split_url(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of a URL with one of these schemes and no secret in it.

    Raises ValueError otherwise; the message does not repeat what may be a password.
    """
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError(
            "url: holds a user name or a password; name an environment variable with the "
            "Authorization header instead"
        )
    try:
        parts = urlsplit(url)
        known = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"url: expected {' or '.join(schemes)}, then ://host:port/…")
    return parts


def check_secret_allowed(variable: str, url: str) -> None:
    """Checks that the user lets this address receive the secret in an environment variable.

    A description file may be somebody else's. It must not choose both the secret and who receives
    it, so the user repeats the pair in the environment variable DB3KD_ALLOW_SECRET, as
    VARIABLE=scheme://host:port. Several pairs are separated by spaces. Scheme, host and port must
    all be the same.

    Raises:
        ValueError: if the pair is not there. The message says what to set, and repeats no secret.
    """
    pair = (variable, _origin(url))
    for entry in os.environ.get(_ALLOWED_SECRETS, "").split():
        allowed, _, address = entry.partition("=")
        if (allowed, _origin(address)) == pair:
            return
    raise ValueError(
        "header: the description wants to send the secret in the environment variable "
        f"{variable!r} to {pair[1]}; if you trust it, set {_ALLOWED_SECRETS}='{variable}={pair[1]}'"
    )


def _origin(url: str) -> str:
    """Scheme, host and port, in one spelling; the text itself if it is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return url
    if not parts.scheme or not parts.hostname:
        return url
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def most_bytes(images: int, classes: int) -> int:
    """The greatest length of an answer for so many images: ample for scores written as JSON."""
    return 2**20 + images * (256 + 64 * classes)


def malformed(who: str, error: Exception) -> TeacherError:
    """An answer that cannot be read. Its content is not repeated."""
    return TeacherError(f"{who}: the server's answer cannot be read ({type(error).__name__})")


async def _read(response: Any, most: int, who: str) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise TeacherError(f"{who}: expected an answer that is not compressed")
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > most:
            raise TeacherError(f"{who}: expected an answer of at most {most:,} bytes, got more")
    return bytes(body)


async def _beginning(response: Any) -> bytes:
    """Enough of an error's body to quote; nothing of one that is compressed."""
    body = b""
    async for part in response.content.iter_any():
        body += part
        if len(body) > _QUOTED:
            break
    return b"" if "Content-Encoding" in response.headers else body[:_QUOTED]


def _refuse(status: int, headers: Mapping[str, str], reported: str, who: str) -> None:
    """Raises what any status but 200 means."""
    if status == 200:
        return
    if status in (429, 503):
        wait = _retry_after(headers.get("Retry-After"))
        asked = f", and asks to wait {wait:g} s" if wait else ""
        raise RetryableError(f"the server says {status}{asked}", maybe_paid=False, wait=wait)
    if status in (502, 504):
        raise RetryableError(f"the server says {status}", maybe_paid=True)
    if 300 <= status < 400:
        raise TeacherError(
            f"{who}: the server redirects ({status}), and no redirect is followed; give the "
            "final address"
        )
    raise TeacherError(f"{who}: the server says {status}{reported}")


def _retry_after(value: str | None) -> float:
    """Seconds, from seconds or a date; 0 for what is neither."""
    if not value:
        return 0.0
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _told(body: bytes) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    text = "".join(character for character in text if character.isprintable())
    return f": {text}" if text else ""


def _kind(error: Exception) -> str:
    return type(error).__name__
