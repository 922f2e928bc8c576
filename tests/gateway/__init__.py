"""Our own QR gateway, as a real process on a scripted WhatsApp, driven by the Python side over HTTP."""
