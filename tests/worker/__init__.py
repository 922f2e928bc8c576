"""Tests of replyline.worker."""
