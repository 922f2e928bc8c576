"""Both WhatsApp channels from end to end: the door, the workers, and the stand-ins of Meta and of the gateway, on real stores."""
