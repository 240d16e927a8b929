"""Builders of Kubernetes objects: each takes a deployment and returns plain data. One file per concern.

Nothing is read, compared or written here, and no Secret is made: those are `credentials`'.
"""
