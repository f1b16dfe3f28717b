"""Files that survive a crash: run folders, shards, manifests and journals."""

from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.existing_runs import check_free, holds_run
from db3kd.storage.journal import Journal
from db3kd.storage.kinds import Kind
from db3kd.storage.manifest import MANIFEST, make_manifest, read_manifest
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.shards import read_shards

__all__ = [
    "MANIFEST",
    "ChoiceLog",
    "Journal",
    "Kind",
    "RunFolder",
    "check_free",
    "holds_run",
    "make_manifest",
    "read_manifest",
    "read_shards",
]
