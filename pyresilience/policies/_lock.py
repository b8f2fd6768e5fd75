"""Holding a lock on the happy path: half the price of `with`, and as safe.

```python
try:
    lock.acquire()
    ...
    lock.release()
except BaseException:
    let_go(lock)
    raise
```

An interrupt may arrive as soon as `acquire` or `release` returns. The `except` can tell which it was only because the
lock is an `RLock`: no thread can release what it does not hold. A signal handler that itself calls through the layer
whose lock is held is let in, where with a plain lock it would wait for ever; what it finds may be half done.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol

_making = threading.RLock()  # a signal handler may need a lock while one is being made


class LazyLock(Protocol):
    """An object that gets its lock late."""

    _own_lock: threading.Lock


def make_lock(owner: LazyLock) -> threading.Lock:
    """The lock of an object that has none yet; the same one for all threads that ask at the same time."""
    with _making:
        lock = threading.Lock()
        try:
            return owner._own_lock
        except AttributeError:  # nothing is called from here on: no signal handler comes in between
            owner._own_lock = lock
        return lock


def _after_fork() -> None:
    global _making
    _making = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def let_go(lock: threading.RLock) -> None:
    """Release the lock if this thread holds it."""
    try:
        lock.release()
    except RuntimeError:
        pass
