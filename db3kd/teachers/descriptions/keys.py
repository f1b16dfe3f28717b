"""The keys of description files, read from the classes that validate them."""

import dataclasses
import inspect
import re
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from db3kd.teachers.descriptions.description import Description

_TYPES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true, false",
    Any: "any value",
}


@dataclasses.dataclass(frozen=True)
class DescriptionKey:
    """A key of a description file.

    Attributes:
        name: The key.
        type: The type of its value, such as "list of integers".
        choices: The texts that its value may be; empty for any value of the type.
        default: Its default as the file would state it; None if the key may be left out.
        required: Whether the table needs it.
        is_table: Whether its value is a table of keys.
        text: What it means.
    """

    name: str
    type: str
    choices: tuple[str, ...]
    default: str | None
    required: bool
    is_table: bool
    text: str


@dataclasses.dataclass(frozen=True)
class DescriptionTable:
    """A table of a description file.

    Attributes:
        name: Its name; empty for the keys outside of tables.
        text: What it is for.
        keys: Its keys.
    """

    name: str
    text: str
    keys: tuple[DescriptionKey, ...]


def description_tables() -> list[DescriptionTable]:
    """Returns the tables of a description file, that of the keys outside of tables first.

    Example:
        >>> [table.name for table in description_tables()]
        ['', 'preprocessing', 'requests', 'header', 'rest']
    """
    hints = get_type_hints(Description)
    inner = {name: _without_none(hint) for name, hint in hints.items()}
    tables = {name: kind for name, kind in inner.items() if dataclasses.is_dataclass(kind)}
    return [_table(name, kind) for name, kind in {"": Description, **tables}.items()]


def attribute_texts(documented: type) -> dict[str, str]:
    """Returns the text of each attribute that the docstring of a class documents."""
    text = inspect.getdoc(documented) or ""
    section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE)
    if section is None:
        return {}
    texts: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(section[1]).splitlines():
        if entry := re.match(r"(\w+): (.*)", line):
            name = entry[1]
            texts[name] = entry[2]
        elif name:
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts


def _table(name: str, kind: Any) -> DescriptionTable:
    hints, texts = get_type_hints(kind), attribute_texts(kind)
    keys = []
    for field in dataclasses.fields(kind):
        hint = _without_none(hints[field.name])
        keys.append(
            DescriptionKey(
                name=field.name,
                type=_type_text(hint),
                choices=get_args(hint) if get_origin(hint) is Literal else (),
                default=_default_text(field),
                required=field.default is dataclasses.MISSING,
                is_table=dataclasses.is_dataclass(hint),
                text=texts.get(field.name, ""),
            )
        )
    text = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    return DescriptionTable(name, text, tuple(keys))


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(each for each in get_args(hint) if each is not NoneType)]  # noqa: UP007
    return hint


def _type_text(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):
        return "table"
    if get_origin(hint) is Union:
        return " or ".join(map(_type_text, get_args(hint)))
    if get_origin(hint) is Literal:
        return "text"
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if inner[-1] is Ellipsis:
            return f"list of {_TYPES[inner[0]]}s"
        return f"list of {len(inner)} {_TYPES[inner[0]]}s"
    return _TYPES[hint]


def _default_text(field: dataclasses.Field[Any]) -> str | None:
    if field.default is dataclasses.MISSING or field.default is None:
        return None
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return str(default).lower() if isinstance(default, bool) else repr(default).replace("'", '"')
