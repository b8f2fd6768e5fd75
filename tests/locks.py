"""Looking at locks from outside."""

import threading


def free(lock):
    """Whether nobody holds it. Asked in a thread of its own, because an `RLock` lets its owner in again."""
    answers = []

    def look():
        if lock.acquire(blocking=False):
            lock.release()
            answers.append(True)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return bool(answers)
