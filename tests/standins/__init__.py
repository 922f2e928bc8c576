"""Tests of the stand-ins: what they answer on the wire, and what they post."""
