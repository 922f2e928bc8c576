"""Tests of the HTTP surface, over real sockets against real stores."""
