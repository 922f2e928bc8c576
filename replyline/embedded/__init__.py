"""The servers that `replyline start` brings along if none is named: Valkey and Postgres, as children that die with it."""

from replyline.embedded.errors import DataFolderInUse, EmbeddedError, EmbeddedFailed, EmbeddedUnavailable
from replyline.embedded.folder import DataFolder
from replyline.embedded.postgres import EmbeddedPostgres
from replyline.embedded.valkey import EmbeddedValkey

__all__ = [
    "DataFolder",
    "DataFolderInUse",
    "EmbeddedError",
    "EmbeddedFailed",
    "EmbeddedPostgres",
    "EmbeddedUnavailable",
    "EmbeddedValkey",
]
