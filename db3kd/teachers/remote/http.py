"""HTTP requests with guards against hostile servers.

One deadline covers a request and its answer, the length of an answer is limited, redirects are not
followed, and errors do not quote the server if it received a secret.
"""

import asyncio
import email.utils
import io
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

from db3kd.errors import ArgumentError
from db3kd.extras import import_extra
from db3kd.teachers.base import TeacherError
from db3kd.teachers.remote.retry import RetryableError
from db3kd.teachers.remote.secret_header import SecretHeader

_MAX_QUOTED_BYTES = 200
"""Maximum number of bytes of an answer that an error quotes."""

_REJECTED = (425, 429, 503)
"""Statuses of requests that were not answered, and may be repeated."""

_PERMANENT = (501, 505, 511)
"""The statuses from 500 on that a repeated request would get again."""


@dataclass(frozen=True)
class Reply:
    """An answer with status 200.

    Attributes:
        headers: The headers; their names are case-insensitive.
        body: The body.
    """

    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends requests to one server. Belongs to one event loop.

    Args:
        connections: Maximum number of open connections.
        timeout: Seconds from sending a request to receiving all of its answer.
        secret: A header to send with every request.
    """

    def __init__(self, connections: int, timeout: float, secret: SecretHeader | None) -> None:
        self._aiohttp = import_extra("aiohttp", "remote")
        self._connections = connections
        self._timeout = timeout
        self._secret = secret
        self._open_session: Any = None

    async def send(
        self,
        url: str,
        max_bytes: int,
        who: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        sent: str = "",
    ) -> Reply:
        """Sends a POST request with content, or a GET request without, and returns the answer.

        Args:
            url: The address.
            max_bytes: Maximum length of the answer's body.
            who: How errors begin.
            content: The body of the request.
            headers: Headers to send besides the secret.
            sent: What the body holds, for the error if the server rejects it.

        Raises:
            RetryableError: If the request may be repeated.
            TeacherError: If repeating the request cannot help.
        """
        method = "GET" if content is None else "POST"
        all_headers = {**(headers or {}), **(self._secret.read() if self._secret else {})}
        data = None if content is None else io.BytesIO(content)  # aiohttp sends a file in pieces
        aiohttp = self._aiohttp
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session().request(
                    method, url, data=data, headers=all_headers, allow_redirects=False
                ) as response,
            ):
                if response.status == 200:
                    body = await _read_body(response, max_bytes, who)
                else:
                    body = await _read_beginning(response)
        except TimeoutError:
            message = f"no complete answer within {self._timeout:g} s"
            raise RetryableError(message, maybe_paid=True) from None
        except aiohttp.ClientSSLError as error:
            message = f"{who}: no secure connection ({_kind(error)})"
            raise TeacherError(message, maybe_paid=0) from None
        except aiohttp.ClientConnectorError as error:
            raise RetryableError(no_connection(_reason(error)), maybe_paid=False) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise RetryableError(f"connection lost ({_kind(error)})", maybe_paid=True) from None
        except aiohttp.ClientError as error:
            raise TeacherError(f"{who}: expected an HTTP response ({_kind(error)})") from None
        words = self._words_of_server(url, body) + self._own_part(response.status, sent)
        _raise_for_status(response.status, response.headers, words, who)
        return Reply(response.headers, body)

    async def close(self) -> None:
        """Closes all connections."""
        if self._open_session is not None:
            await self._open_session.close()

    def _session(self) -> Any:
        """Opens the session on first use, because it belongs to the event loop then running."""
        if self._open_session is None:
            aiohttp = self._aiohttp
            self._open_session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),  # aiohttp's is off; `send` sets the deadline
                # A compressed answer could grow without limit when it is decompressed.
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                # Otherwise aiohttp sends passwords of ~/.netrc and uses the environment's proxies.
                trust_env=False,
            )
        return self._open_session

    def _words_of_server(self, url: str, body: bytes) -> str:
        """Returns what an error repeats of an answer, or why it repeats nothing."""
        if not body:
            return ""
        if self._secret is not None:
            return "; its words are withheld, because it received a secret"
        if "?" in url:
            return "; its words are withheld, because the query of the address may hold a key"
        return _quotation(body)

    def _own_part(self, status: int, sent: str) -> str:
        """Returns what db3kd did that such a status may be about."""
        if status in (401, 403):
            if self._secret is None:
                return "; no secret is configured (variable and name in [header])"
            return (
                f"; the secret in {self._secret.variable} was sent in the header "
                f"{self._secret.name} (name in [header])"
            )
        return f"; the request held {sent}" if sent and status in (400, 422, 500) else ""


def split_url(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Returns the parts of a URL with one of these schemes, and no user name or password.

    Raises:
        ValueError: If the URL is not valid. The message does not repeat a password.
    """
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ArgumentError(
            "url",
            "holds a user name or a password; name an environment variable with the "
            "Authorization header instead",
        )
    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ArgumentError("url", f"expected {' or '.join(schemes)}, then ://host:port/…")
    return parts


def json_encoder() -> Callable[[Any], bytes]:
    """Returns a function that writes a JSON value as UTF-8, with NumPy arrays as nested lists.

    A float32 is written in the fewest digits that are read as the same float32, which take half the
    bytes of those of a float64. Arrays must be C-contiguous.

    Example:
        >>> json_encoder()({"instances": np.array([[0.1]], np.float32)})
        b'{"instances":[[0.1]]}'

    Raises:
        ModuleNotFoundError: If orjson is not installed.
    """
    orjson = import_extra("orjson", "remote")
    return partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def max_answer_bytes(images: int, classes: int) -> int:
    """Returns the maximum length of an answer: ample for scores written as JSON."""
    return 2**20 + images * (256 + 64 * classes)


def unreadable(who: str, error: Exception) -> TeacherError:
    """Returns the error for an answer that cannot be read. It does not quote the answer."""
    return TeacherError(f"{who}: the server's answer cannot be read ({_kind(error)})")


def no_connection(reason: str = "") -> str:
    """Returns the message if a server cannot be reached, with the system's reason if known."""
    because = f" ({reason})" if reason else ""
    return f"no connection{because}; is the server running, and is the address right?"


async def _read_body(response: Any, max_bytes: int, who: str) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise TeacherError(f"{who}: expected an uncompressed response")
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > max_bytes:
            raise TeacherError(
                f"{who}: expected a response of at most {max_bytes:,} bytes, got more"
            )
    return bytes(body)


async def _read_beginning(response: Any) -> bytes:
    """Reads enough of a body to quote it. Returns nothing of a compressed body."""
    body = b""
    async for part in response.content.iter_any():
        body += part
        if len(body) > _MAX_QUOTED_BYTES:
            break
    return b"" if "Content-Encoding" in response.headers else body[:_MAX_QUOTED_BYTES]


def _raise_for_status(status: int, headers: Mapping[str, str], words: str, who: str) -> None:
    """Raises the error that stands for any status but 200, and ends with `words`."""
    if status == 200:
        return
    # These requests may have been charged: the model ran out of memory, or a gateway timed out.
    failed = status == 408 or (500 <= status < 600 and status not in _PERMANENT)
    if status in _REJECTED or failed:
        wait = _retry_after(headers.get("Retry-After"))
        request = f" and asks for a wait of {wait:g} s" if wait else ""
        message = f"the server answered with status {status}{request}{words}"
        raise RetryableError(message, maybe_paid=status not in _REJECTED, wait=wait)
    if 300 <= status < 400:
        raise TeacherError(
            f"{who}: the server redirects (status {status}), and redirects are not followed; use "
            "the final address",
            maybe_paid=0,
        )
    raise TeacherError(
        f"{who}: the server answered with status {status}{words}",
        maybe_paid=None if 200 <= status < 300 else 0,  # 201 is an answer, of another form
    )


def _retry_after(value: str | None) -> float:
    """Returns the seconds of a Retry-After header, or 0 if it is missing or invalid."""
    if not value:
        return 0.0
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _quotation(body: bytes) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    text = "".join(character for character in text if character.isprintable())
    return f": {text}" if text else ""


def _reason(error: Any) -> str:
    """Returns the operating system's reason for a failed connection: never a server's words."""
    number = error.os_error.errno
    known = isinstance(number, int) and number > 0
    return os.strerror(number).lower() if known else "unknown host"


def _kind(error: Exception) -> str:
    return type(error).__name__
