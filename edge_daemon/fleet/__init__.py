"""The device's end of the fleet: its identity, its desired configuration and its reports."""
