"""Postgres, the record: every statement of SQL in Replyline stands below this folder."""
