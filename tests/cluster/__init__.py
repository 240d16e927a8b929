"""Against a real Kubernetes in which pods start."""
