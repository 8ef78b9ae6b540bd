"""Where the host's /proc, /sys and root file system are: the only place that knows."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Paths:
    """Injectable roots, as `--path.procfs`, `--path.sysfs` and `--path.rootfs` set them."""

    procfs: str = "/proc"
    sysfs: str = "/sys"
    rootfs: str = "/"

    def proc(self, *parts: str) -> str:
        """A path below procfs."""
        return "/".join((self.procfs.rstrip("/"), *parts))

    def sys(self, *parts: str) -> str:
        """A path below sysfs."""
        return "/".join((self.sysfs.rstrip("/"), *parts))

    def net(self, name: str) -> str:
        """A file of the host's network namespace.

        /proc/net is a link to the reader's own namespace. A container that mounts the host's procfs
        elsewhere would read itself through it, so there init's namespace is asked.
        """
        if os.path.normpath(self.procfs) != "/proc":
            of_init = self.proc("1", "net", name)
            # os.access: not allowed to look (hidepid, another user's init) is as good as not there.
            if os.access(of_init, os.R_OK):
                return of_init
        return self.proc("net", name)
