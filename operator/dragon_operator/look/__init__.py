"""One look at a deployment: what is there, what has to be done, how it is, and what the status says."""
