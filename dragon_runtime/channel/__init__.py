"""Ordered pipes of a session's frames: over MQTT, and in memory."""
