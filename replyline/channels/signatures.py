"""Comparing a signature or a token that came in with the one that is right."""

import hmac


def same(given: str, wanted: str) -> bool:
    """Whether both are the same, in a time that says nothing about where they differ; `given` may be any text at all."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), wanted.encode())
