"""Evolution API v2 behind our own QR gateway contract (docs/qr-gateway.md): an adapter that remembers what Evolution forgets."""
