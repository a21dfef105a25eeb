"""The report on data files that a person reads before paying: format, sizes, mistakes, and what will be learnt.

Owns the counting and the verdict; reads every row once, in flat memory. Reading, recognising and tokenising are the
neighbours'. Called by `shardwork data check` and `job plan`; `prepare` applies the same rules again and stops at the
first mistake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InvalidInput
from ..problem import Problem
from .report import BUCKETS, DataReport, Sample, Verdict
from .rows import Format, Row, read_rows
from .source import SourceFile, read_lines, source_files
from .split import MIN_EVAL_ROWS
from .tokenise import BATCH_ROWS, Encoded, RowTokenizer

#: problems kept with their place; the rest are only counted
MAX_LISTED = 100
#: of one piece of a previewed row
PREVIEW_LETTERS = 2000
#: a byte-level vocabulary of a few thousand tokens makes about this many bytes a token of English
BYTES_PER_TOKEN = 3
#: progress is told at least this often
TOLD_EVERY_BYTES = 256 << 10
#: what the learning recipes take when a job says 'auto'
DEFAULT_MAX_LENGTH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What else of a stage decides whether its rows will do."""

    chat_template: str = "model"
    train_on_prompt: bool = False
    #: rows (pretrain: packed rows) that the job needs at least, e.g. one batch
    min_rows: int = 1
    eval_fraction: float | None = None
    #: how many rows are shown with their mask
    preview_rows: int = 3
    #: told (bytes read, bytes in all) while the files are read
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    recipe: str
    max_length: int
    options: CheckOptions


def check_data(
    files: Sequence[Path],
    *,
    recipe: str,
    model_folder: Path | None = None,
    max_length: int | None = None,
    eval_files: Sequence[Path] = (),
    options: CheckOptions | None = None,
) -> DataReport:
    """Reads all files and reports; wrong rows are in the report's `errors`, never raised.

    Without a model folder (pre-training from scratch) tokens are estimated from bytes. Raises InvalidInput "model.*",
    "tokenizer.*" or "template.refused" when the model folder itself cannot be used.
    """
    plan = _Plan(recipe, max_length or DEFAULT_MAX_LENGTH, options or CheckOptions())
    with ExitStack() as stack:
        tokenizer = None
        if model_folder is not None:
            template = plan.options.chat_template
            tokenizer = stack.enter_context(RowTokenizer.load(model_folder, chat_template=template))
        sources, held_out_sources = source_files(files), source_files(eval_files)
        heard = _meter([*held_out_sources, *sources], plan.options.progress)
        held_out = _Count(plan, tokenizer)
        if eval_files:
            held_out.read(held_out_sources, heard)
        train = _Count(plan, tokenizer, held_out=set(held_out.digests))
        train.read(sources, heard)
        return _report(plan, train, held_out if eval_files else None)


def _meter(files: Sequence[SourceFile], progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    """Adds up what is read and reports at the start and then now and then."""
    if progress is None:
        return lambda _num_bytes: None
    total = sum(file.path.stat().st_size for file in files if file.path.is_file())
    done, told = 0, 0
    progress(0, total)

    def heard(num_bytes: int) -> None:
        nonlocal done, told
        done += num_bytes
        if done - told > min(total // 100, TOLD_EVERY_BYTES):
            told = done
            progress(done, total)

    return heard


@dataclass(slots=True)
class _Count:
    """One pass over one set of files."""

    plan: _Plan
    tokenizer: RowTokenizer | None
    held_out: set[bytes] = field(default_factory=set[bytes])
    format: Format | None = None
    is_conversational: bool = False
    rows: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    num_bytes: int = 0
    truncated: int = 0
    all_masked: int = 0
    duplicates: int = 0
    leaked: int = 0
    first_leak: Row | None = None
    first_masked: Row | None = None
    num_errors: int = 0
    errors: list[Problem] = field(default_factory=list[Problem])
    digests: set[bytes] = field(default_factory=set[bytes])
    ignored: dict[str, tuple[Row, int]] = field(default_factory=dict[str, tuple[Row, int]])
    lengths: Counter[int] = field(default_factory=Counter[int])
    preview: list[Sample] = field(default_factory=list[Sample])

    def read(self, files: Sequence[SourceFile], heard: Callable[[int], None]) -> None:
        for batch in _batches(self._good(read_rows(read_lines(files, heard)))):
            self._encode(batch)

    def error(self, problem: Problem) -> None:
        self.num_errors += 1
        if len(self.errors) < MAX_LISTED:
            self.errors.append(problem)

    def _good(self, rows: Iterable[Row | Problem]) -> Iterator[Row]:
        for row in rows:
            if isinstance(row, Problem):
                self.error(row)
                continue
            if self.format is None:
                self.format, self.is_conversational = row.format, row.is_conversational
                if not self._is_usable(row):
                    return
            self.rows += 1
            self._compare(row)
            for key in row.ignored:
                first, count = self.ignored.get(key, (row, 0))
                self.ignored[key] = (first, count + 1)
            yield row

    def _is_usable(self, row: Row) -> bool:
        """Whether recipe and model can read this format at all; otherwise one error says so and reading stops."""
        if self.plan.recipe == "pretrain" and row.format is not Format.TEXT:
            fix = "Use the recipe sft, or write the rows as `text`."
            sentence = f"Pre-training reads text, but the rows are {row.format}."
            self.error(_at(row, "recipe", "data.wrong_format", sentence, fix))
            return False
        if row.is_conversational and self.tokenizer is not None and self.tokenizer.template is None:
            fix = "Set params.chat_template: chatml, use a chat model, or give prompt and completion as text."
            sentence = "The rows are conversations, but the model has no chat template."
            self.error(_at(row, "chat_template", "template.missing", sentence, fix))
            return False
        return True

    def _compare(self, row: Row) -> None:
        digest = row.digest()
        if digest in self.held_out:
            self.leaked += 1
            self.first_leak = self.first_leak or row
        if digest in self.digests:
            self.duplicates += 1
        else:
            self.digests.add(digest)

    def _encode(self, batch: list[Row]) -> None:
        if self.tokenizer is None:
            self._estimate(batch)
        elif self.plan.recipe == "pretrain":
            for row, tokens in zip(batch, self.tokenizer.encode_documents([row.text for row in batch]), strict=True):
                self._count(row, Encoded(tokens, b"\1" * len(tokens)), cut=False)
        else:
            for row, item in zip(
                batch, self.tokenizer.encode(batch, train_on_prompt=self.plan.options.train_on_prompt), strict=True
            ):
                if isinstance(item, Problem):
                    self.error(item)
                else:
                    self._count(row, item, cut=True)

    def _estimate(self, batch: list[Row]) -> None:
        for row in batch:
            text = row.plain()
            size = len(text.encode("utf-8", "surrogatepass"))
            self.num_bytes += size
            length = size // BYTES_PER_TOKEN + 1
            self.tokens += length
            self.loss_tokens += length
            self.lengths[_bucket(length)] += 1
            if len(self.preview) < self.plan.options.preview_rows:
                shown = [(piece[:PREVIEW_LETTERS], counts) for piece, counts in row.pieces()]
                self.preview.append(Sample(row.file, row.line, tuple(shown)))

    def _count(self, row: Row, item: Encoded, *, cut: bool) -> None:
        self.lengths[_bucket(len(item.tokens))] += 1
        kept = item.cut(self.plan.max_length) if cut else item
        self.truncated += len(kept.tokens) < len(item.tokens)
        if kept.loss_tokens == 0:
            self.all_masked += 1
            self.first_masked = self.first_masked or row
        else:
            self.tokens += len(kept.tokens)
            self.loss_tokens += kept.loss_tokens
        if len(self.preview) < self.plan.options.preview_rows and self.tokenizer is not None:
            shown = item.cut(self.plan.max_length)
            self.preview.append(Sample(row.file, row.line, tuple(self.tokenizer.pieces(shown))))


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _bucket(length: int) -> int:
    """The smallest bucket that holds this many tokens."""
    return next((top for top in BUCKETS if length <= top), BUCKETS[-1])


# ---- the verdict ---------------------------------------------------------------------------------------------------


def _report(plan: _Plan, train: _Count, held_out: _Count | None) -> DataReport:
    _judge(plan, train, held_out)
    errors = [*train.errors, *(held_out.errors if held_out else [])]
    num_errors = train.num_errors + (held_out.num_errors if held_out else 0)
    warnings = [*_warnings(train), *(_warnings(held_out) if held_out else [])]
    too_small = any(problem.code == "data.too_few" for problem in errors) and num_errors == 1
    verdict = Verdict.OK
    if too_small:
        verdict = Verdict.TOO_SMALL
    elif num_errors:
        verdict = Verdict.ERRORS
    elif warnings:
        verdict = Verdict.WARNINGS
    return DataReport(
        format=train.format,
        rows=train.rows,
        tokens=train.tokens,
        loss_tokens=train.loss_tokens,
        is_estimated=train.tokenizer is None,
        max_length=plan.max_length,
        errors=tuple(errors),
        num_errors=num_errors,
        warnings=tuple(warnings),
        verdict=verdict,
        reasons=tuple(problem.sentence for problem in (errors or warnings)[:5]),
        truncated_rows=train.truncated,
        all_masked_rows=train.all_masked,
        duplicate_rows=train.duplicates,
        eval_rows=held_out.rows if held_out else 0,
        eval_duplicates=train.leaked,
        histogram=tuple((top, train.lengths[top]) for top in BUCKETS if train.lengths[top]),
        preview=tuple(train.preview),
    )


def _judge(plan: _Plan, train: _Count, held_out: _Count | None) -> None:
    """Errors that only the whole shows. Not added on top of others, whose repair may change them."""
    if train.num_errors or (held_out and held_out.num_errors):
        return
    learnt = train.tokens // plan.max_length if plan.recipe == "pretrain" else train.rows - train.all_masked
    learnt -= train.leaked if plan.recipe != "pretrain" else 0
    if train.rows and train.all_masked == train.rows:
        sentence = f"No row has an answer left within {plan.max_length} tokens, so there is nothing to learn."
        fix = "Raise params.max_length, or check the preview: the answers may be cut off or empty."
        train.error(_at(train.first_masked, "params.max_length", "data.all_masked", sentence, fix))
        return
    needed = max(plan.options.min_rows, 1) + (MIN_EVAL_ROWS if plan.options.eval_fraction else 0)
    if learnt < needed:
        unit = f"rows of {plan.max_length} tokens" if plan.recipe == "pretrain" else "rows"
        sentence = f"The data gives {max(learnt, 0)} {unit}; at least {needed} are needed."
        train.error(_at(None, "data", "data.too_few", sentence, "Give more data or set a smaller batch_size."))
    elif held_out is not None and held_out.rows < MIN_EVAL_ROWS:
        sentence = f"The held-out data gives {held_out.rows} rows; at least {MIN_EVAL_ROWS} are needed."
        train.error(_at(None, "eval_data", "data.too_few_held_out", sentence, "Give more held-out rows."))


def _warnings(count: _Count) -> list[Problem]:
    found: list[Problem] = []
    if count.all_masked:
        sentence = (
            f"{count.all_masked:,} of {count.rows:,} rows have no answer left within max_length; they are left out."
        )
        fix = "Raise params.max_length, or shorten their prompts."
        found.append(_at(count.first_masked, "params.max_length", "data.masked_rows", sentence, fix))
    if count.truncated:
        sentence = f"{count.truncated:,} of {count.rows:,} rows are cut to {count.plan.max_length} tokens."
        found.append(_at(None, "params.max_length", "data.truncated_rows", sentence, "Raise params.max_length."))
    if count.leaked:
        sentence = f"Held out and in the training data: {_rows(count.leaked)}; left out of training."
        found.append(_at(count.first_leak, "eval_data", "data.eval_leak", sentence, "Remove them from one side."))
    if count.duplicates:
        sentence = f"Repeating an earlier row exactly: {_rows(count.duplicates)}."
        found.append(_at(None, "data", "data.duplicates", sentence, "Remove them if they are not meant."))
    for key, (row, times) in count.ignored.items():
        sentence = f"The key {key!r} is not read; it stands in {_rows(times)}."
        found.append(_at(row, key, "data.ignored_key", sentence, "Remove it, or leave it: it changes nothing."))
    options = count.plan.options
    if count.tokenizer is None and count.is_conversational and options.chat_template == "model":
        sentence = "The rows are conversations; whether the model will have a chat template is not known yet."
        fix = "Set params.chat_template: chatml if an earlier stage makes the model from nothing."
        found.append(_at(None, "params.chat_template", "template.not_known_yet", sentence, fix))
    tokenizer = count.tokenizer
    if tokenizer is not None and tokenizer.template is not None and tokenizer.template.uses_date and count.rows:
        sentence = "The chat template writes today's date; a fixed one is used, so that results can be repeated."
        found.append(_at(None, "chat_template", "template.date", sentence, "Nothing is needed."))
    return found


def _rows(number: int) -> str:
    return f"{number:,} row{'s' if number != 1 else ''}"


def _at(row: Row | None, key: str, code: str, sentence: str, fix: str) -> Problem:
    file, line = (row.file, row.line) if row is not None else ("", None)
    return Problem(file=file, line=line, key=key, code=code, sentence=sentence, fix=fix)


def raise_errors(report: DataReport) -> None:
    """Raises InvalidInput with the report's first error, if it has one; for callers that plan on good data only."""
    if report.errors:
        first = report.errors[0]
        more = f" {report.num_errors - 1} more follow." if report.num_errors > 1 else ""
        raise InvalidInput(
            first.code,
            first.sentence + more,
            next_step=first.fix,
            file=first.file,
            line=first.line or "",
            key=first.key,
        )
