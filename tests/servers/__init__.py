"""Real servers and daemons that tests start."""
