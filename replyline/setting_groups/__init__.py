"""The settings by subject; `replyline.settings` joins them and reads the environment."""
