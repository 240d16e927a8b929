"""The operator: keeps DragonDeployments and EdgeDevices as their resources say.

`handlers` and `operator` are all that knows kopf. Nothing here runs a model, opens a store or holds a session.
"""
