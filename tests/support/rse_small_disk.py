"""A storage element on a disk of a few megabytes, to be filled."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servicelib.xrootd import XRootD


class _XRootDInItsOwnNamespace(XRootD):
    """Mounts its tmpfs for itself alone: what a user without root may do where the kernel lets them."""

    size = 0

    def command(self) -> list[str]:
        root = shlex.quote(str(self.data_root))
        script = (
            f"mount -t tmpfs -o size={self.size} none {root} && mkdir {root}{self.prefix} && "
            f"exec {shlex.join(super().command())}"
        )
        return ["unshare", "--user", "--map-current-user", "--keep-caps", "--mount", "sh", "-c", script]


@contextmanager
def xrootd_on_small_disk(directory: Path, name: str, size: int) -> Iterator[XRootD]:
    """Run an XRootD server whose storage holds `size` bytes.

    As root the tmpfs is mounted for all to see; otherwise in a mount namespace of the server's own.
    """
    mount = directory / f"{name}-disk"
    mount.mkdir(parents=True)
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "none", mount], check=True)
        server = XRootD(directory, name, data_root=mount)
        server.account.own(mount)
    else:
        server = _XRootDInItsOwnNamespace(directory, name, data_root=mount)
        server.size = size
    try:
        server.start()
        yield server
    finally:
        server.stop()
        if os.geteuid() == 0:
            subprocess.run(["umount", "--lazy", mount], check=True)
