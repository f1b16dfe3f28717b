"""Kinds of run folders: their files, and what messages and checks need to know of each."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from db3kd.errors import InputError

_SHARD = re.compile(r"-(\d{10})-([0-9a-f]{8})\.parquet")

_DESCRIPTIONS = {
    "answers": "a run of db3kd distill (answers)",
    "augmented-decisions": "the answers of db3kd surrogate (augmented decisions)",
    "labels": "a run of db3kd label (labels)",
    "pseudo-samples": "a run of db3kd synthesize (pseudo samples)",
    "test-decisions": "a comparison of db3kd compare (decisions for test images)",
}
"""How messages describe the kinds of runs, by their names.

They are listed here, and not in each `Kind`, because a command that is given a wrong folder
describes a run of a stage that it has not imported.
"""


@dataclass(frozen=True, kw_only=True)
class DifferenceRules:
    """How messages describe in what two runs of a kind differ; see run_differences.py.

    Names of entries are dotted, such as "settings.plan.budget". Entries that runs of all kinds
    have, such as the fingerprint of the images, need no rules here.

    Attributes:
        causes: Entries that others follow from, such as the budget of a run, which determines its
            plan.
        later_causes: Further ones, which may themselves follow from one of `causes`.
        following: How the names of entries begin that may follow from others.
        budget: The entry that holds the budget of a run, if there is one.
        larger_budgets: Whether a run may be continued with a larger budget.
        other_arguments: Arguments that set entries of other names, by the last part of the name.
        no_arguments: Entries that no single argument sets.
    """

    causes: tuple[str, ...] = ()
    later_causes: tuple[str, ...] = ()
    following: tuple[str, ...] = ()
    budget: str | None = None
    larger_budgets: bool = False
    other_arguments: Mapping[str, str] = field(default_factory=dict, hash=False)
    no_arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """What a run folder holds.

    Attributes:
        name: Plural noun, part of the format and of shard names.
        version: Number of the format: of the columns and of what identifies a run. A folder with
            another number is refused.
        lists: Lists that the manifest may have, and the counts in each of their entries.
        differences: How messages describe in what two runs differ.
    """

    name: str
    version: int
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    differences: DifferenceRules = DifferenceRules()

    @property
    def format(self) -> str:
        """Format in the manifest."""
        return f"db3kd {self.name} {self.version}"

    def shard_prefix(self, position: int) -> str:
        """Returns the start of the names of a shard's files."""
        return f"{self.name}-{position:010d}"

    def shard_name(self, position: int, content: bytes) -> str:
        """Returns the name of the file of a shard."""
        return f"{self.shard_prefix(position)}-{zlib.crc32(content):08x}.parquet"

    def shards(self, folder: str | Path) -> dict[int, Path]:
        """Returns the shards of a folder by position, in ascending order.

        Raises:
            ValueError: If two shards have the same position.
        """
        files: dict[int, Path] = {}
        for file in sorted(Path(folder).glob(f"{self.name}-*.parquet")):
            match = _SHARD.fullmatch(file.name.removeprefix(self.name))
            if match is None:
                continue
            position = int(match[1])
            if position in files:
                raise InputError(
                    f"{folder}: expected one shard at {position}, got {files[position].name} and "
                    f"{file.name}; keep the one that this run wrote"
                )
            files[position] = file
        return files


def describe_format(format: str) -> str:
    """Describes the kind of a run by its format, such as "db3kd labels 6"."""
    name = format.removeprefix("db3kd ").rpartition(" ")[0]
    return _DESCRIPTIONS.get(name, f"a run of another kind ({format})")
