"""Servers that we start beside us: an MQTT broker and a Triton server, as processes."""
