"""A real Kubernetes for tests: a control plane alone, or a cluster with one node in which pods start."""
