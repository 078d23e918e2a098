"""Locks on a store that is no folder: objects that their holders renew, and that time out.

STORE.lock… is an object beside the store that tells who holds it and when it was renewed last. It
is written only if it is still as it was read, so of two who see it free one gets it; and once it is
old, nobody respects it: its holder died.
"""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import tensorstore as ts

from jaxviz.scale.store import open_place, plain_errors

RENEWED, STALE = 30.0, 180.0  # seconds between renewals; until nobody respects it
LOOKED = 0.2  # seconds between two looks whether it is free


class Leases:
    """The locks of one store."""

    def __init__(self, kvstore: ts.KvStore, me: str) -> None:
        """Take leases in the name of `me`."""
        self.kvstore, self.me = kvstore, me
        self.folder, _, self.name = kvstore.path.rstrip("/").rpartition("/")

    @contextmanager
    def take(self, suffix: str) -> Iterator[None]:
        """Hold the lease while the block runs; wait until it is free."""
        place = self._place(self.kvstore.path.rstrip("/") + suffix)
        with plain_errors(self.kvstore, "written"):
            while not (held := self._taken(place)):
                time.sleep(LOOKED)
        ended = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(place, held, ended), daemon=True)
        renewal.start()
        try:
            yield
        finally:
            ended.set()
            renewal.join()
            with plain_errors(self.kvstore, "written"):
                place.write("", None, if_equal=held[-1]).result()

    def holders(self) -> dict[str, str]:
        """Return who holds a lease that is not old: {suffix: words}."""
        place = self._place(f"{self.folder}/" if self.folder else "")
        own = re.compile(re.escape(self.name) + r"(\.lock\.\d+-of-\d+)")
        with plain_errors(self.kvstore, "read"):
            first = f"{self.name}.lock."
            keys = place.list(ts.KvStore.KeyRange(first, first[:-1] + "/")).result()
            matches = [own.fullmatch(key.decode(errors="replace")) for key in keys]
            read = {m[1]: place.read(m[0]).result() for m in matches if m}
        leases = {s: json.loads(r.value) for s, r in read.items() if r.state == "value"}
        return {suffix: lease["holder"] for suffix, lease in leases.items() if not _old(lease)}

    def _place(self, path: str) -> ts.KvStore:
        return open_place({**self.kvstore.spec().to_json(), "path": path})

    def _taken(self, place: ts.KvStore) -> list[bytes]:
        """Write the lease; return its generation, nothing if another holds it."""
        found = place.read("").result()
        if found.state == "value" and not _old(json.loads(found.value)):
            return []
        written = place.write("", self._lease(), if_equal=found.stamp.generation).result()
        return [written.generation] if written.generation else []

    def _renew(self, place: ts.KvStore, held: list[bytes], ended: threading.Event) -> None:
        while not ended.wait(RENEWED):
            with suppress(ValueError):  # the next renewal comes long before the lease is old
                # Not if another took it, who saw it old because this process stood still.
                written = place.write("", self._lease(), if_equal=held[-1]).result()
                held[-1] = written.generation or held[-1]

    def _lease(self) -> bytes:
        return json.dumps({"holder": self.me, "renewed": time.time()}).encode()


def _old(lease: dict) -> bool:
    return time.time() - lease["renewed"] > STALE
