"""The adapter for Evolution API v2, against a stand-in with Evolution's own shapes, over real HTTP on both sides."""
