"""The reference of description files as Markdown."""

from db3kd.teachers.descriptions.keys import (
    DescriptionKey,
    DescriptionTable,
    description_tables,
)


def description_reference() -> str:
    """Returns a table of the keys, and one for each table of keys inside the file."""
    outside, *tables = description_tables()
    parts = [_markdown(outside)]
    for table in tables:
        parts += [f"## [{table.name}]", table.text, _markdown(table)]
    return "\n\n".join(parts)


def _markdown(table: DescriptionTable) -> str:
    rows = ["| key | type | default | |", "|---|---|---|---|"]
    for key in table.keys:
        name = f"[`[{key.name}]`](#{key.name})" if key.is_table else f"`{key.name}`"
        kind = ", ".join(f'`"{choice}"`' for choice in key.choices) or key.type
        cells = (name, kind, _default(key), key.text.replace("|", "\\|"))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _default(key: DescriptionKey) -> str:
    if key.required:
        return "required"
    return "" if key.default is None else f"`{key.default}`"
