"""A cluster in one process: an API server that keeps the real one's rules and a kubelet whose pods are local processes."""
