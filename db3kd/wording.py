"""Words and numbers in messages and reports: counts, prices, and suggestions for misspelt names."""

import difflib
import textwrap
from collections.abc import Iterable, Sequence
from typing import Literal

InputNoun = Literal["image", "row"]
"""What messages call an input of the teacher: an image, or a row of a table."""

_MAX_MESSAGE = 500
"""Most characters that a message quotes of another one, which may hold names of any length."""

_PLAIN = 10_000
"""Numbers of at least this size are written with thousands separators, and without fractions."""


def input_noun(image_shape: Sequence[int]) -> InputNoun:
    """Returns what messages call an input of a shape; rows of a table have one dimension.

    Example:
        >>> input_noun((1, 28, 28)), input_noun((13,))
        ('image', 'row')
    """
    return "row" if len(image_shape) == 1 else "image"


def held_out_noun(noun: InputNoun, *, pseudo_samples: bool) -> str:
    """Returns what messages call a held-out image.

    Example:
        >>> held_out_noun("image", pseudo_samples=True)
        'held-out pseudo sample'
    """
    return f"held-out {'pseudo sample' if pseudo_samples else noun}"


def counted(count: int, noun: str) -> str:
    """Writes a number of things; the noun is given in the singular.

    Example:
        >>> counted(1, "image"), counted(2000, "held-out image"), counted(2, "query")
        ('1 image', '2,000 held-out images', '2 queries')
    """
    return f"{count:,} {noun_for(count, noun)}"


def noun_for(count: int, noun: str) -> str:
    """Returns a singular noun as it is written after a count, without the count.

    Example:
        >>> noun_for(1, "held-out row"), noun_for(20, "held-out row")
        ('held-out row', 'held-out rows')
    """
    return noun if count == 1 else plural(noun)


def plural(noun: str) -> str:
    """Returns the plural of a regular English noun.

    Example:
        >>> plural("row"), plural("class"), plural("query")
        ('rows', 'classes', 'queries')
    """
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def money(price: float) -> str:
    """Writes a price in any currency, with cents and as many further digits as it needs.

    Prices of at least 1 are rounded to a hundredth of a cent, smaller ones to four significant
    digits.

    Example:
        >>> money(12345.6), money(0.625), money(0.0001)
        ('12,345.60', '0.625', '0.0001')
    """
    decimals = 4
    if 0 < price < 1:
        exponent = int(f"{price:e}".partition("e")[2])
        decimals = max(decimals, 3 - exponent)
    whole, _, fraction = f"{price:,.{decimals}f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def also_paid(paid_twice: int, queries: int = 0, price_per_1000: float | None = None) -> str:
    """Returns the clause that says how many queries may have been paid for twice; empty for 0.

    It states the highest price of these and the other queries, if the price of 1,000 queries is
    given.

    Example:
        >>> also_paid(16), also_paid(0)
        (', plus at most 16 that may have been paid twice', '')
        >>> also_paid(16, 84, 10.0)
        ', plus at most 16 that may have been paid twice, so the price is at most 1.00'
    """
    if not paid_twice:
        return ""
    clause = f", plus at most {paid_twice:,} that may have been paid twice"
    if price_per_1000 is not None:
        highest = money((queries + paid_twice) * price_per_1000 / 1000)
        clause += f", so the price is at most {highest}"
    return clause


def paid_twice_text(queries: int) -> str:
    """Returns the words for queries that may have been paid for without a usable answer.

    Example:
        >>> paid_twice_text(16)
        'at most 16 queries that were sent but returned no usable answer'
    """
    return f"at most {counted(queries, 'query')} that were sent but returned no usable answer"


def plain_number(value: float) -> str:
    """Writes a measured number without an exponent, unless it is very small or very large.

    Example:
        >>> plain_number(45510.2), plain_number(1680.0), plain_number(0.12345)
        ('45,510', '1680', '0.1234')
    """
    if _PLAIN - 0.5 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def shortened(values: Iterable[object], most: int = 10) -> str:
    """Writes the first values of a list, with an ellipsis if there are more.

    Example:
        >>> shortened([3, 1, 4, 1], most=3)
        '3, 1, 4, …'

    Args:
        values: The values.
        most: Maximum number of values to write.
    """
    texts = [str(value) for value in values]
    return ", ".join(texts[:most]) + (", …" if len(texts) > most else "")


def listed(texts: Sequence[str]) -> str:
    """Writes all texts of a list, which is not empty.

    Example:
        >>> listed(["sd"]), listed(["sd", "bd"]), listed(["sd", "bd", "mbd"])
        ('sd', 'sd and bd', 'sd, bd and mbd')
    """
    *others, last = texts
    return f"{', '.join(others)} and {last}" if others else last


def class_text(number: int, class_names: Sequence[str] | None) -> str:
    """Returns what a message calls a class: its quoted name, or its number without names.

    Example:
        >>> class_text(1, ("ant", "bee")), class_text(1, None)
        ("'bee'", '1')
    """
    return str(number) if class_names is None else repr(class_names[number])


def first_line(error: BaseException) -> str:
    r"""Returns the first line of an error's message that is not empty, or its type without any.

    Example:
        >>> first_line(ValueError("\n no such file \n in line 3")), first_line(ValueError())
        ('no such file', 'ValueError')
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return textwrap.shorten(line, _MAX_MESSAGE, placeholder=" …")


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Returns the end of an error's message that suggests a known name; empty if none is similar.

    Only text is compared.

    Example:
        >>> did_you_mean("lenet5-hlf", ["lenet5", "lenet5-half", "mlp"])
        "; did you mean 'lenet5-half'?"
    """
    if not isinstance(name, str):
        return ""
    texts = {each.lower(): each for each in known if isinstance(each, str)}
    near = difflib.get_close_matches(name.strip().lower(), texts, 1)
    return f"; did you mean {texts[near[0]]!r}?" if near else ""
