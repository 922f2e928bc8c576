"""Tests of replyline.cli."""
