"""A relay that makes a link slow: delay, jitter and cuts. Imports nothing of the other packages."""
