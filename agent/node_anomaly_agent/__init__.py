"""The daemon on a node: reads the host, scores it with a published bundle and tells Prometheus."""
