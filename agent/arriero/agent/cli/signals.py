"""Long work ends in order when it is told to: by Ctrl-C, or by whoever runs services."""

import signal
import threading
from types import FrameType


def until_told() -> threading.Event:
    """Give what SIGINT and SIGTERM set from now on; signals are only for the main thread."""
    stop = threading.Event()

    def told(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, told)
    return stop
