"""A worker process that deletes by HTTP and does nothing else: the limit of deleting. Standard library only."""

import queue
import threading
from http.client import HTTPConnection
from urllib.parse import urlsplit

from benchlib.lines import serve
from benchlib.stopwatch import Stopwatch


def delete(url: str, paths: list[str], connections: int) -> dict[str, object]:
    """Delete files below a URL over so many connections, each kept as long as the server lets it.

    Parameters
    ----------
    paths
        Without anything that has to be quoted.
    """
    where = urlsplit(url)
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for path in paths:
        waiting.put(f"{where.path}/{path}")
    faults: list[str] = []

    def work() -> None:
        connection = HTTPConnection(str(where.hostname), where.port, timeout=60)
        try:
            while True:
                path = waiting.get_nowait()
                connection.request("DELETE", path)
                answer = connection.getresponse()
                answer.read()
                if answer.status not in (200, 204):
                    faults.append(f"{path}: {answer.status}")
        except queue.Empty:
            connection.close()
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: it is raised below
            faults.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(connections)]
    watch = Stopwatch()
    with watch:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if faults:
        raise RuntimeError(f"{len(faults)} deletions failed, such as {faults[0]}")
    return watch.report(len(paths))


if __name__ == "__main__":
    serve({"delete": delete})
