"""What can go wrong with the servers that Replyline brings along."""


class EmbeddedError(Exception):
    """An embedded server cannot be used; the message says what to do."""


class EmbeddedUnavailable(EmbeddedError):
    """There is no such server for this platform or user; the message names the variable that replaces it."""


class EmbeddedFailed(EmbeddedError):
    """The server did not come up; the message ends with the last lines of its log."""


class DataFolderInUse(EmbeddedError):
    """Another process of ours works in this data folder."""
