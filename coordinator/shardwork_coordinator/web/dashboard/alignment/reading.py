"""Reading: pages of a JSONL file and small JSON files out of an artifact, a bounded piece at a time. Blocking.

What stages made holds strangers' text: no line, no file and no search is read without a limit; those of lines are
`shardwork.feedback.paging`'s. Called by `samples` and `reports`, in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from shardwork.artifact import LEAF_BYTES
from shardwork.errors import Corrupt
from shardwork.feedback.paging import Found, Paging, file_of_rows, leaves_of_page, row_of
from shardwork.feedback.samples import Row

from ....artifacts import ArtifactStore

#: of a file that is read whole
MOST_WHOLE_BYTES = 4 << 20


class Lines:
    """The file of rows of an artifact."""

    def __init__(self, contents: ArtifactStore, artifact: str) -> None:
        """Raises NotFound "samples.no_rows"."""
        self._contents, self._artifact = contents, artifact
        manifest = contents.manifest(artifact)
        entry = file_of_rows(manifest)
        self.path, self.size = entry.path, entry.size
        self._leaf = manifest.leaf_span(entry.path)[0]

    def page(self, start: int, count: int, wanted: Callable[[Row], bool]) -> Found:
        """Rows that are wanted, and where to go on. `start`: where a line begins."""
        paging = Paging(file=self.path, size=self.size, start=start, count=count, wanted=wanted)
        for piece in self._pieces(start, paging.end):
            if not paging.add(piece):
                break
        return paging.found()

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        wanted = leaves_of_page(start, end)
        if not wanted:
            return
        leaves = self._contents.read_leaves(self._artifact, self._leaf + wanted.start, len(wanted))
        for number, leaf in zip(wanted, leaves, strict=False):
            offset = number * LEAF_BYTES
            yield bytes(leaf[max(start - offset, 0) : end - offset])


def whole(contents: ArtifactStore, artifact: str, path: str) -> Row:
    """A small JSON object. Raises NotFound "artifact.no_such_file", Corrupt "samples.unreadable"."""
    manifest = contents.manifest(artifact)
    first, count = manifest.leaf_span(path)
    if count * LEAF_BYTES > MOST_WHOLE_BYTES:
        raise Corrupt("samples.unreadable", "The file is too long to be shown.", file=path)
    row = row_of(b"".join(islice(contents.read_leaves(artifact, first, count), count)))
    if row is None:
        raise Corrupt("samples.unreadable", "The file holds no JSON object.", file=path)
    return row
