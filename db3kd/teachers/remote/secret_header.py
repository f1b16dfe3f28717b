"""Secrets that are sent to a server, and the user's permission to send them."""

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from db3kd.errors import ArgumentError

ALLOWED_SECRETS = "DB3KD_ALLOW_SECRET"
"""The environment variable with the pairs of secrets and addresses that the user allows."""


@dataclass(frozen=True)
class SecretHeader:
    """A request header whose value is kept in an environment variable and nowhere else.

    Example:
        >>> os.environ["DIGITS_AUTHORIZATION"] = "Bearer 0a1b2c"
        >>> secret = SecretHeader("DIGITS_AUTHORIZATION")
        >>> teacher = open_inference_teacher(url, secret=secret)

    Attributes:
        variable: The environment variable with the whole value, such as "Bearer …".
        name: The name of the header.

    Raises:
        ValueError: If the name is invalid, or if the variable is not set or not a valid header.
    """

    variable: str
    name: str = "Authorization"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ArgumentError(
                "header", f"expected a name such as Authorization, got {self.name!r}"
            )
        self.read()

    def read(self) -> dict[str, str]:
        """Returns the header to send.

        Raises:
            ValueError: If the variable is not set, or if its value is not a valid header.
        """
        value = os.environ.get(self.variable, "").strip()
        if not value:
            raise ArgumentError(
                "header",
                f"expected its value in the environment variable {self.variable}, which is not set",
            )
        if not value.isascii() or not value.isprintable():
            raise ArgumentError(
                "header",
                f"expected printable ASCII characters in the environment variable "
                f"{self.variable}, got others, which a header cannot hold",
            )
        return {self.name: value}


def check_secret_allowed(variable: str, url: str) -> None:
    """Checks that the user permits sending the secret in an environment variable to a server.

    A description file may come from somebody else. It must not choose both the secret and the
    server, so the user repeats the pair in the environment variable DB3KD_ALLOW_SECRET, as
    VARIABLE=scheme://host:port. Spaces separate several pairs. Scheme, host and port must match.

    Args:
        variable: The environment variable with the secret.
        url: The address to which the secret would be sent.

    Raises:
        ValueError: If the pair is not permitted. The message names what to set and repeats no
            secret.
    """
    pair = (variable, _origin(url))
    for entry in os.environ.get(ALLOWED_SECRETS, "").split():
        allowed, _, address = entry.partition("=")
        if (allowed, _origin(address)) == pair:
            return
    unset = not os.environ.get(variable, "").strip()
    also = (
        f"; also set {variable}, which is not set, to the whole value of the header"
        if unset
        else ""
    )
    raise ArgumentError(
        "header",
        "the description asks to send the secret in the environment variable "
        f"{variable!r} to {pair[1]}; if you trust it, set {ALLOWED_SECRETS}='{variable}={pair[1]}'"
        f"{also}",
    )


def _origin(url: str) -> str:
    """Returns scheme, host and port in one spelling, or the text itself if it is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return url
    if not parts.scheme or not parts.hostname:
        return url
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")
