"""The device's end of the fleet: its identity, what is wanted of it, and what it tells of itself."""
