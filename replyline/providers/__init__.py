"""The AI providers that can answer, by name.

To add a provider: one file here that offers a `Provider`, one line in `PROVIDERS`. Its test runs the contract suite in
`tests/providers/`.
"""
