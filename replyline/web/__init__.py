"""The HTTP surface: the door for messages, the API for customers and operators, health and metrics."""

from replyline.web.app import create_app, let_pages_go

__all__ = ["create_app", "let_pages_go"]
