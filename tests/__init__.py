"""The tests of Replyline; they mirror the package and read what is in the real stores and on the wire."""
