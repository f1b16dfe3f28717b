"""Makes a page of the site from a notebook and the outputs that it holds."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def notebook_page(file: str) -> str:
    """Returns a notebook as Markdown.

    Args:
        file: The path of the notebook, relative to the root of the repository.
    """
    parts = []
    for cell in json.loads((ROOT / file).read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [shown for output in cell["outputs"] if (shown := _output(output))]
    return "\n\n".join(parts)


def _output(output: dict[str, Any]) -> str:
    """Returns what a cell put out: a picture, a table, or else text."""
    data = output.get("data", {})
    if "image/png" in data:
        picture = "".join(data["image/png"]).replace("\n", "")
        return _boxed(f"![Output of the cell above](data:image/png;base64,{picture})")
    if "text/html" in data:
        table = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
        table = re.sub(r'<table border="1" class="dataframe">', '<table class="docutils">', table)
        return _boxed(f'```{{raw}} html\n<div class="table-wrapper">{table}</div>\n```')
    text = "".join(data.get("text/plain", output.get("text", "")))
    return _boxed(f"```text\n{text.rstrip()}\n```") if text else ""


def _boxed(content: str) -> str:
    return f":::{{container}} notebook-output\n{content}\n:::"
