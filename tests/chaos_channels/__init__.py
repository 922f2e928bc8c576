"""Both WhatsApp channels bent in every way their contracts allow, with real processes: what is lost, doubled, out of order?"""
