"""One pass over the files of one side, training or held out: what there is, what is wrong, how long it is.

Owns the counters; memory grows by some 100 bytes a row (digests and sketches), not with the rows' text. What the
counts mean is judged by `check`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..errors import InvalidInput
from ..problem import Problem
from .formats.judged import missing_key, wrong_kind
from .lengths import Layout, Overlong, RowLengths, fitted, layout, refused_split
from .line import Line, Source, SourceFile
from .near import Sketches
from .pairing import JUDGED, Sides, are_equal, encode_sides, fitted_sides, has_answers, longest
from .report import BUCKETS, Sample, SourceCount
from .row import KEEPS_KEYS, LEARNS_FROM, Format, Row
from .rows import read_rows
from .source import read_lines
from .staged import line_bytes, travels_as_it_is
from .tokenise import BATCH_ROWS, Encoded, RowTokenizer
from .weights import reads

#: recipes that show a conversation as it stands, and render it with no template
UNRENDERED = frozenset({"judge", "people"})
#: problems kept with their place; the rest are only counted
MAX_LISTED = 100
#: of one piece of a previewed row
PREVIEW_LETTERS = 2000
#: a byte-level vocabulary of a few thousand tokens makes about this many bytes a token of English
BYTES_PER_TOKEN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What else of a stage decides whether its rows will do."""

    chat_template: str = "model"
    train_on_prompt: bool = False
    packing: bool | str = "auto"
    overlong: Overlong = Overlong.AUTO
    #: rows (packed: sequences) that the job needs at least, e.g. one batch
    min_rows: int = 1
    #: rows side by side, where they are padded
    batch_size: int = 8
    eval_fraction: float | None = None
    #: how many rows are shown with their mask
    preview_rows: int = 3
    #: told (bytes read, bytes in all) while the files are read
    progress: Callable[[int, int], None] | None = None
    #: of the plan and the model, for the verdict on sufficiency; 0: unknown
    planned_rows: int = 0
    run_params: int = 0
    trained_params: int = 0
    from_scratch: bool = False
    #: whether the model has a chat template, where an earlier stage makes it; None: its folder says so, or nobody knows
    has_template: bool | None = None
    #: of judged rows: the kind that the objective learns from; of prompts: keys by which answers are graded
    rows_are: str = ""
    row_keys: tuple[str, ...] = ()
    #: what else the stage can't use, of one row
    wrong_row: Callable[[Row], Problem | None] | None = None


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """What the files are checked for. `recipe` is empty where none was named."""

    recipe: str
    max_length: int
    options: CheckOptions

    @property
    def layout(self) -> Layout:
        return layout(self.options.packing, self.recipe)


@dataclass(frozen=True, slots=True)
class Place:
    file: str
    line: int


@dataclass(slots=True)
class Count:
    """One pass over one set of files."""

    plan: CheckPlan
    tokenizer: RowTokenizer | None
    #: whether rows are sketched, to be compared with the other side
    compares: bool = False
    held_out: set[bytes] = field(default_factory=set[bytes])
    format: Format | None = None
    is_conversational: bool = False
    rows: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    #: rows longer than max_length, and those of them that were split or dropped; the rest are cut
    overlong: int = 0
    split: int = 0
    dropped: int = 0
    all_masked: int = 0
    duplicates: int = 0
    leaked: int = 0
    first_leak: Row | None = None
    first_masked: Row | None = None
    first_long: Row | None = None
    num_errors: int = 0
    errors: list[Problem] = field(default_factory=list[Problem])
    digests: set[bytes] = field(default_factory=set[bytes])
    ignored: dict[str, tuple[Row, int]] = field(default_factory=dict[str, tuple[Row, int]])
    histogram: Counter[int] = field(default_factory=Counter[int])
    preview: list[Sample] = field(default_factory=list[Sample])
    sources: list[SourceCount] = field(default_factory=list[SourceCount])
    #: of the rows that are learnt from, in order
    kept: list[bytes] = field(default_factory=list[bytes])
    #: what each of them asks (`Row.topic`)
    topics: list[bytes] = field(default_factory=list[bytes])
    lengths: RowLengths = field(default_factory=RowLengths)
    sketches: Sketches = field(default_factory=Sketches)
    _files: list[str] = field(default_factory=list[str])
    _places: array[int] = field(default_factory=lambda: array("q"))

    def read(self, sources: Sequence[Source], files: Sequence[SourceFile], heard: Callable[[int], None]) -> None:
        self.sources = [SourceCount(source.name, source.weight) for source in sources]
        for file in files:
            self.sources[file.source].files += 1
        lines = self._weighed(read_lines(files, heard))
        for batch in _batches(self._good(read_rows(lines))):
            self._encode(batch)

    @property
    def truncated(self) -> int:
        return self.overlong - self.split - self.dropped

    def error(self, problem: Problem) -> None:
        self.num_errors += 1
        if len(self.errors) < MAX_LISTED:
            self.errors.append(problem)

    def place(self, position: int) -> Place:
        """Where the kept row at this position stands."""
        return Place(self._files[self._places[2 * position]], self._places[2 * position + 1])

    def _weighed(self, lines: Iterable[Line | Problem]) -> Iterator[Line | Problem]:
        """Counts the bytes that converted files will have on their way."""
        for line in lines:
            if isinstance(line, Line) and not travels_as_it_is(line.origin):
                try:
                    self.sources[line.origin.source].converted_bytes += len(line_bytes(line))
                except InvalidInput:
                    pass  # the row itself is reported where it is read
            yield line

    def _good(self, rows: Iterable[Row | Problem]) -> Iterator[Row]:
        for row in rows:
            if isinstance(row, Problem):
                self.error(row)
                continue
            if self.format is None:
                self.format, self.is_conversational = row.format, row.is_conversational
                if not self._is_usable(row):
                    return
            if (wrong := self._wrong(row)) is not None:
                self.error(wrong)
                continue
            self.rows += 1
            for key in row.ignored:
                first, count = self.ignored.get(key, (row, 0))
                self.ignored[key] = (first, count + 1)
            yield row

    def _wrong(self, row: Row) -> Problem | None:
        """What this stage asks of each row beyond its format."""
        options = self.plan.options
        missing = missing_key(row, options.row_keys) if row.format is Format.PROMPT else None
        return missing or (options.wrong_row(row) if options.wrong_row is not None else None)

    def _is_usable(self, row: Row) -> bool:
        """Whether recipe and model can read this format at all; otherwise one error says so and reading stops."""
        recipe = self.plan.recipe
        if row.format not in LEARNS_FROM.get(recipe, frozenset(Format)):
            self.error(wrong_format(row, recipe))
            return False
        refused = refused_split(row, self.plan.options.overlong) or wrong_kind(row, self.plan.options.rows_are)
        if refused is not None:
            self.error(refused)
            return False
        tokenizer = self.tokenizer
        options = self.plan.options
        has_template = tokenizer.template is not None if tokenizer is not None else options.has_template
        renders = row.is_conversational and row.format is not Format.ANSWERS and recipe not in UNRENDERED
        if renders and options.chat_template == "model" and has_template is False:
            fix = "Set params.chat_template: chatml (--chat-template chatml), use a chat model, or give text."
            sentence = "The rows are conversations, but the model has no chat template."
            self.error(at(row, "chat_template", "template.missing", sentence, fix))
            return False
        return True

    def _compare(self, row: Row, digest: bytes) -> None:
        if digest in self.held_out:
            self.leaked += 1
            self.first_leak = self.first_leak or row
        if digest in self.digests:
            self.duplicates += 1
        else:
            self.digests.add(digest)

    # ---- lengths ---------------------------------------------------------------------------------------------------

    def _encode(self, batch: list[Row]) -> None:
        if self.tokenizer is None:
            for row in batch:
                self._estimate(row)
        elif self.plan.recipe == "pretrain":
            for row, tokens in zip(batch, self.tokenizer.encode_documents([row.text for row in batch]), strict=True):
                self._count(row, Encoded(tokens, b"\1" * len(tokens)))
        elif batch[0].format in JUDGED:
            for row, sides in zip(batch, encode_sides(self.tokenizer, batch), strict=True):
                if isinstance(sides, Problem):
                    self.error(sides)
                else:
                    self._count_sides(row, sides)
        else:
            encoded = self.tokenizer.encode(batch, train_on_prompt=self.plan.options.train_on_prompt)
            for row, item in zip(batch, encoded, strict=True):
                if isinstance(item, Problem):
                    self.error(item)
                else:
                    self._count(row, item)

    def _estimate(self, row: Row) -> None:
        length = len(row.plain().encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN + 1
        self.histogram[bucket(length)] += 1
        self._keep(row, [length], length)
        if len(self.preview) < self.plan.options.preview_rows:
            self.preview.append(Sample(row.file, row.line, _as_written(row)))

    def _count_sides(self, row: Row, sides: Sides) -> None:
        """A pair is one row with the tokens of both its answers."""
        assert self.tokenizer is not None
        size = longest(sides)
        self.histogram[bucket(size)] += 1
        fit = fitted_sides(sides, self.plan.max_length, self.plan.options.overlong.of(row.format))
        if len(self.preview) < self.plan.options.preview_rows:
            self.preview.append(Sample(row.file, row.line, tuple(self._shown(self.tokenizer, fit or sides))))
        if size > self.plan.max_length:
            self.overlong += 1
            self.first_long = self.first_long or row
            self.dropped += not fit
        if has_answers(fit) and not are_equal(fit):
            self._keep(row, [len(side.tokens) for side in fit], sum(side.loss_tokens for side in fit))
        elif fit:
            self.all_masked += 1
            self.first_masked = self.first_masked or row

    def _shown(self, tokenizer: RowTokenizer, sides: Sides) -> list[tuple[str, bool]]:
        """A pair's prompt, then each answer by its name."""
        first = tokenizer.pieces(sides[0])
        if len(sides) == 1:
            return first
        prompt, good = [piece for piece in first if not piece[1]], [piece for piece in first if piece[1]]
        bad = [(text, False) for text, is_answer in tokenizer.pieces(sides[1]) if is_answer]
        return [*prompt, ("\n[chosen] ", False), *good, ("\n[rejected] ", False), *bad]

    def _count(self, row: Row, item: Encoded) -> None:
        self.histogram[bucket(len(item.tokens))] += 1
        if self.tokenizer is not None and len(self.preview) < self.plan.options.preview_rows:
            cut = item.tail if row.format is Format.PROMPT else item.cut
            # whoever compares answers is not shown them as one text
            is_compared = row.format is Format.ANSWERS
            shown = _as_written(row) if is_compared else tuple(self.tokenizer.pieces(cut(self.plan.max_length)))
            self.preview.append(Sample(row.file, row.line, shown))
        how = self.plan.options.overlong.of(row.format)
        if self.plan.layout is Layout.JOINED and how is Overlong.SPLIT:  # cut where the sequences end
            self._keep(row, [len(item.tokens)], item.loss_tokens)
            return
        pieces = fitted(item, self.plan.max_length, how)
        if len(item.tokens) > self.plan.max_length:
            self.overlong += 1
            self.first_long = self.first_long or row
            self.split += len(pieces) > 1
            self.dropped += not pieces
            if not pieces:
                return
        learnt = [piece for piece in pieces if piece.loss_tokens or (row.format in KEEPS_KEYS and piece.tokens)]
        if learnt:
            self._keep(row, [len(each.tokens) for each in learnt], sum(each.loss_tokens for each in learnt))
        else:
            self.all_masked += 1
            self.first_masked = self.first_masked or row

    def _keep(self, row: Row, pieces: Sequence[int], loss_tokens: int) -> None:
        """The row is learnt from, as often as its source's weight says. `pieces`: tokens of each."""
        digest, tokens = row.digest(), sum(pieces)
        self._compare(row, digest)
        source = self.sources[row.source]
        times = reads(digest, source.weight)
        source.rows += 1
        source.reads += times
        source.tokens += tokens * times
        source.shape = source.shape or row.shape
        self.tokens += tokens * times
        self.loss_tokens += loss_tokens * times
        self.kept.append(digest)
        self.topics.append(row.topic(digest))
        self.lengths.add(pieces, times)
        if self.compares:
            self.sketches.add(row.plain())
            if not self._files or self._files[-1] != row.file:
                self._files.append(row.file)
            self._places.extend((len(self._files) - 1, row.line))


def wrong_format(row: Row, recipe: str) -> Problem:
    """Rows of a kind that the recipe does not learn from."""
    does, fix = _READS.get(recipe, _READS["sft"])
    return at(row, "recipe", "data.wrong_format", f"The recipe {recipe} {does}, but the rows are {row.shape}.", fix)


_TEXT = ("reads text", "Use the recipe sft, or write the rows as `text`.")
_PROMPTS = ("reads prompts", "Write the rows with a `prompt`: text, or a list of messages.")
_ANSWERS = (
    "compares answers",
    "Write the rows as `prompt` and `answers`, as the recipe generate does, or as `chosen` and `rejected`.",
)
#: recipe -> what it reads, and what to do about rows of another kind
_READS = {
    "pretrain": _TEXT,
    "count": _TEXT,
    "sft": (
        "learns from text, messages or prompt and completion",
        "Write the better answers as prompt and completion, or use the recipe dpo or reward.",
    ),
    "reward": (
        "learns from preferences or scores",
        "Write the rows as `chosen` and `rejected`, or as `prompt`, `completion` and `score`.",
    ),
    "dpo": (
        "learns from preferences or labels",
        "Write the rows as `chosen` and `rejected`, or as `prompt`, `completion` and `label`.",
    ),
    "ppo": _PROMPTS,
    "grpo": _PROMPTS,
    "generate": _PROMPTS,
    "judge": _ANSWERS,
    "people": _ANSWERS,
}


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def bucket(length: int) -> int:
    """The smallest bucket of the histogram that holds this many tokens."""
    return next((top for top in BUCKETS if length <= top), BUCKETS[-1])


def at(row: Row | Place | None, key: str, code: str, sentence: str, fix: str) -> Problem:
    """A problem with the place of a row, where there is one."""
    file, line = (row.file, row.line) if row is not None else ("", None)
    return Problem(file=file, line=line, key=key, code=code, sentence=sentence, fix=fix)


def _as_written(row: Row) -> tuple[tuple[str, bool], ...]:
    return tuple((piece[:PREVIEW_LETTERS], counts) for piece, counts in row.pieces())
