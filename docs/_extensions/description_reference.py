"""The reference of description files, made from the classes that validate them."""

import dataclasses
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_fields import attribute_texts

from db3kd.teachers.description import Description

_TYPES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true, false",
    Any: "any value",
}


def description_reference() -> str:
    """Returns a table of the keys, and one for each table of keys inside the file."""
    parts = [_table(Description)]
    hints = get_type_hints(Description)
    for field in dataclasses.fields(Description):
        inner = _without_none(hints[field.name])
        if dataclasses.is_dataclass(inner):
            parts += [f"## [{field.name}]", _first_line(inner), _table(inner)]
    return "\n\n".join(parts)


def _table(kind: Any) -> str:
    hints, texts = get_type_hints(kind), attribute_texts(kind)
    rows = ["| key | type | default | |", "|---|---|---|---|"]
    for field in dataclasses.fields(kind):
        hint = _without_none(hints[field.name])
        name = (
            f"[`[{field.name}]`](#{field.name})"
            if dataclasses.is_dataclass(hint)
            else f"`{field.name}`"
        )
        cells = (
            name,
            _type_text(hint),
            _default_text(field),
            texts[field.name].replace("|", "\\|"),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _first_line(kind: Any) -> str:
    return str(kind.__doc__).split("\n\n")[0].replace("\n    ", " ")


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    return hint


def _type_text(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):
        return "table"
    if get_origin(hint) is Literal:
        return ", ".join(f'`"{choice}"`' for choice in get_args(hint))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if inner[-1] is Ellipsis:
            return f"list of {_TYPES[inner[0]]}s"
        return f"list of {len(inner)} {_TYPES[inner[0]]}s"
    return _TYPES[hint]


def _default_text(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "required"
    if field.default is None:
        return ""
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    text = str(default).lower() if isinstance(default, bool) else repr(default).replace("'", '"')
    return f"`{text}`"
