"""A real Kubernetes on this machine: a control plane alone, or a cluster with one node in which pods start."""
