"""One BLAS thread where many small products are made, one after the other.

A fleet is replayed tick by tick: 50 nodes by 60 features times 60 by 60. OpenBLAS shares such a product out
to all cores, and its threads wait for each other by spinning: on two shared cores a tick of 50 nodes cost
17 ms of CPU instead of 2.5 (bench/results/training.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to the calling thread until the end of the block."""
    import sklearn.utils  # noqa: F401 -- brings scipy and its own BLAS; what is loaded later is not limited

    with threadpool_limits(limits=1, user_api="blas"):
        yield
