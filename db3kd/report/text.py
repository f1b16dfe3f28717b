"""Makes text of users safe to show: names of classes and files, command lines.

HTML is escaped by Jinja. What is left are characters that change the text around them or that no
file can hold, names of any length, and the markup of Markdown.
"""

import re

MAX_NAME_LENGTH = 80
"""Longer names of classes and features are cut."""

_BIDI_CONTROLS = "\u202a-\u202e\u2066-\u2069"
_UNSAFE = re.compile(f"[{_BIDI_CONTROLS}\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MARKUP = re.compile(
    r"\\(?=[!-/:-@\[-`{-~]|$)"  # a backslash before punctuation
    r"|[`*\[\]~$]"
    r"|<(?=[A-Za-z/!?])"  # HTML and links
    r"|&(?=#|\w+;)"  # entities
    r"|^>|(?<!\S)#"  # quotes and headings
    r"|(?<![^\W_])_|_(?![^\W_])"  # underscores between letters or digits are no markup
    r"|^[-+=](?=[-+=\s]|$)"  # lists, rules and underlines of headings
)


def clean_text(text: str) -> str:
    """Replaces control characters, lone surrogates and overrides of the writing direction.

    Lone surrogates occur in the names of files that are not UTF-8. Line feeds and tabs are kept.
    """
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def shown_name(name: str) -> str:
    """Returns a name on one line, cut to `MAX_NAME_LENGTH` characters."""
    line = " ".join(clean_text(name).split())
    if len(line) > MAX_NAME_LENGTH:
        line = line[: MAX_NAME_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return line or "(no name)"


def markdown_text(text: str) -> str:
    """Returns text on one line that Markdown shows as it is.

    A vertical bar is left to `markdown_table`, since it is markup in tables only.
    """
    line = _MARKUP.sub(r"\\\g<0>", " ".join(clean_text(text).split()))
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)  # the number of a list


def markdown_code(text: str) -> str:
    """Returns text on one line as Markdown code, whatever backticks it has."""
    line = " ".join(clean_text(text).split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def markdown_block(text: str) -> str:
    """Returns lines of text as a block of Markdown code, whatever backticks they have."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{clean_text(text)}\n{fence}"
