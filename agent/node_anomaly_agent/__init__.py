"""The daemon on a node: reads the host, scores it with a published bundle and tells Prometheus."""

import os

# Before numpy is imported. Its products are too small here to gain from threads, of which OpenBLAS starts one
# for each CPU of the host.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
