"""Tests of the AI providers."""
