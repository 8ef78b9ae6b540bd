"""The daemon on a node: reads the host, scores it with a published bundle and tells Prometheus."""

import os
import sys
from importlib.util import find_spec

# Before numpy is imported. Its products are too small here to gain from threads, of which OpenBLAS starts one
# for each CPU of the host.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Before hashlib is imported. It would load OpenSSL's libcrypto, 3.4 MiB, for a few digests a minute that
# Python's own code makes as well. Builds without that code (RHEL's) keep OpenSSL's.
if "hashlib" not in sys.modules and (find_spec("_sha256") or find_spec("_sha2")) and find_spec("_blake2"):
    sys.modules["_hashlib"] = None  # type: ignore[assignment]  # documented: an import of it fails
    import hashlib  # noqa: F401  # and from now on it is as it is

    del sys.modules["_hashlib"]
