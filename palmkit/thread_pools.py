"""Work on many files by a few threads, with results in order."""

from __future__ import annotations

import itertools
from collections import deque


def map_in_chunks(pool, function, items, size: int = 64):
    """Yield function(item) in order, computed by a thread pool that gets `size` items at a time.

    One task for each of 100,000 items would take 200 MB and more time than the work.
    """
    items = list(items)
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    for results in pool.map(lambda chunk: [function(item) for item in chunk], chunks):
        yield from results


def read_ahead(pool, function, items, batch_size):
    """Results of function(item) in order, in lists of batch_size, at most four batches read ahead.

    Results from before a failed item are yielded before its error is raised.
    """
    items = iter(items)
    ahead = deque(pool.submit(function, item) for item in itertools.islice(items, 4 * batch_size))
    while ahead:
        batch, error = [], None
        while ahead and len(batch) < batch_size and error is None:
            future = ahead.popleft()
            error = future.exception()
            batch += [] if error else [future.result()]
        ahead.extend(pool.submit(function, item) for item in itertools.islice(items, len(batch)))
        if batch:
            yield batch
        if error:
            raise error
