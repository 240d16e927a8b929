"""One look at a deployment: what is there, what has to be done, how it is, and what the status says.

Only `observed` and `reconcile` talk to the API server; the rest is data in, data out. Devices are behind `FleetView`.
"""
