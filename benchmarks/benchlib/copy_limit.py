"""The physical limit: a bare ``COPY`` of the same rows into the same tables, with the same indexes and as many commits."""

import time
import zlib

import psycopg

from benchlib import data

_FILES = (
    "COPY dids (id, scope_id, name, type, account_id, is_open, monotonic, bytes, adler32, spread, created_at, updated_at)"
    " FROM STDIN"
)
_REPLICAS = "COPY replicas (file_id, rse_id, bytes, state, created_at, updated_at) FROM STDIN"


def copy_rows(url: str, prefix: str, start: int, count: int, chunk: int) -> dict[str, float]:
    """Copy the rows of files that were never there; they are made ready before the clock starts.

    Parameters
    ----------
    url
        A database with Arriero's schema, a scope and an RSE.
    """
    seconds, at = 0.0, "2026-01-01 00:00:00+00"
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        found = cursor.execute("SELECT coalesce(max(id), 0) FROM dids").fetchone()
        assert found is not None
        first_id = int(found[0]) + 1 - start
        for numbers in data.chunks(start, count, chunk):
            files, there = [], []
            for i in numbers:
                key, name, size = first_id + i, data.name(prefix, i), data.size(i)
                spread = zlib.crc32(f"{data.SCOPE}:{name}".encode()) & 0x7FFFFFFF
                files.append(
                    f"{key}\t1\t{name}\tFILE\t1\tf\tf\t{size}\t{data.ADLER32}\t{spread}\t{at}\t{at}\n"
                )
                there.append(f"{key}\t1\t{size}\tAVAILABLE\t{at}\t{at}\n")
            began = time.perf_counter()
            with cursor.copy(_FILES) as copy:
                copy.write("".join(files))
            with cursor.copy(_REPLICAS) as copy:
                copy.write("".join(there))
            connection.commit()
            seconds += time.perf_counter() - began
    return {"n": count, "seconds": seconds}
