"""Builders of Kubernetes objects: each takes a deployment and returns plain data. One file per concern."""
