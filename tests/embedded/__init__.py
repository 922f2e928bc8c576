"""Tests of replyline.embedded."""
