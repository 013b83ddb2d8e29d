"""A cluster in one process: an API server with the real one's rules, and a kubelet whose pods are local processes."""
