"""Keep XRootD from computing checksums itself, because version 5.5.3 crashes when it does so concurrently.

XRootD (`ofs.notify closew`) writes one line per file that was written; this program computes the adler32 and keeps
it where XRootD looks first: the extended attribute `user.XrdCks.adler32`. See xrootd issues 2534 and 2602, fixed
in 5.8.4. It runs alone, with any Python, as the server's account: it must import nothing of this project.

Usage: stamp.py LOCALROOT
"""

import os
import struct
import sys
import time
import zlib
from pathlib import Path

ATTRIBUTE = "user.XrdCks.adler32"
# struct XrdCksData: name[16], mtime, seconds between mtime and computing, two reserved, length, value[64].
LAYOUT = ">16sqiHBB64s"


def stamp(path: str) -> None:
    """Compute a file's adler32 and keep it in the file's extended attribute."""
    checksum = 1
    with Path(path).open("rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            checksum = zlib.adler32(piece, checksum)
        written = int(os.fstat(file.fileno()).st_mtime)
        age = max(0, int(time.time()) - written)
        value = struct.pack(LAYOUT, b"adler32", written, age, 0, 0, 4, struct.pack(">I", checksum))
        os.setxattr(file.fileno(), ATTRIBUTE, value)


def main(root: str) -> None:
    for line in sys.stdin:
        _, _, event = line.rstrip("\n").partition(" ")
        kind, _, name = event.partition(" ")
        if kind == "closew":
            try:
                stamp(root + name)
            except OSError as error:
                print(f"stamp: {name}: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
