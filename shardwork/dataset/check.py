"""The report on data files that a person reads before paying: format, sizes, mistakes, and what will be learnt.

Owns the order of reading and what the counts mean: errors that only the whole shows, warnings, the verdict. Counting is
`count`, whether it is enough is `sufficiency`. Called by `shardwork data check` and `job plan`; `prepare` applies the
same rules again and stops at the first mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ..errors import InvalidInput
from ..problem import Problem
from .count import CheckOptions, CheckPlan, Count, at
from .lengths import Layout, Overlong, Packing, measured
from .line import Source, SourceFile, paths_or_sources
from .near import THRESHOLD, Pair
from .report import BUCKETS, DataReport, Verdict
from .source import source_files
from .split import MIN_DOCUMENTS, MIN_EVAL_ROWS, MOST_EVAL_ROWS, hold_out
from .sufficiency import Figures, Sufficiency, judge
from .tokenise import RowTokenizer

__all__ = ["DEFAULT_MAX_LENGTH", "CheckOptions", "check_data", "raise_errors"]

#: progress is told at least this often
TOLD_EVERY_BYTES = 256 << 10
#: what the learning recipes take when a job says 'auto'
DEFAULT_MAX_LENGTH = 256


def check_data(
    files: Sequence[Path | Source],
    *,
    recipe: str | None,
    model_folder: Path | None = None,
    max_length: int | None = None,
    eval_files: Sequence[Path | Source] = (),
    options: CheckOptions | None = None,
) -> DataReport:
    """Reads all files and reports; wrong rows are in the report's `errors`, never raised.

    Without a recipe any format will do. Without a model folder (pre-training from scratch) tokens are estimated from
    bytes. Raises InvalidInput "model.*", "tokenizer.*" or "template.refused" when the model folder itself cannot be
    used.
    """
    plan = CheckPlan(recipe or "", max_length or DEFAULT_MAX_LENGTH, options or CheckOptions())
    compares = bool(eval_files) or plan.options.eval_fraction is not None
    with ExitStack() as stack:
        tokenizer = None
        if model_folder is not None:
            template = plan.options.chat_template
            tokenizer = stack.enter_context(RowTokenizer.load(model_folder, chat_template=template))
        sources, held_out_sources = source_files(files, plan.recipe), source_files(eval_files, plan.recipe)
        heard = _meter([*held_out_sources, *sources], plan.options.progress)
        held_out = Count(plan, tokenizer, compares)
        if eval_files:
            held_out.read(paths_or_sources(eval_files), held_out_sources, heard)
        train = Count(plan, tokenizer, compares, held_out=set(held_out.digests))
        train.read(paths_or_sources(files), sources, heard)
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


# ---- the verdict ---------------------------------------------------------------------------------------------------


def _report(plan: CheckPlan, train: Count, held_out: Count | None) -> DataReport:
    split = _chosen(plan, train, held_out)
    packing = _packing(plan, train, held_out, split)
    _judge(plan, train, held_out, packing)
    near = _near(train, held_out, split) if not train.num_errors else []
    errors = [*train.errors, *(held_out.errors if held_out else [])]
    num_errors = train.num_errors + (held_out.num_errors if held_out else 0)
    warnings = [*_warnings(train), *_near_warnings(train, held_out, near), *(_warnings(held_out) if held_out else [])]
    shapes = {source.shape for source in train.sources if source.shape}
    return DataReport(
        format=train.format,
        written=shapes.pop() if len(shapes) == 1 else str(train.format or ""),
        rows=train.rows,
        tokens=train.tokens,
        loss_tokens=train.loss_tokens,
        is_estimated=train.tokenizer is None,
        max_length=plan.max_length,
        errors=tuple(errors),
        num_errors=num_errors,
        warnings=tuple(warnings),
        verdict=_verdict(errors, num_errors, warnings),
        reasons=tuple(problem.sentence for problem in (errors or warnings)[:5]),
        truncated_rows=train.truncated,
        split_rows=train.split,
        dropped_rows=train.dropped,
        all_masked_rows=train.all_masked,
        duplicate_rows=train.duplicates,
        eval_rows=held_out.rows if held_out else len(split),
        eval_duplicates=train.leaked,
        near_duplicates=len(near),
        histogram=tuple((top, train.histogram[top]) for top in BUCKETS if train.histogram[top]),
        preview=tuple(train.preview),
        sources=tuple(train.sources),
        eval_sources=tuple(held_out.sources) if held_out else (),
        sufficiency=_sufficiency(plan, train, packing) if not num_errors else None,
        packing=packing,
    )


def _verdict(errors: list[Problem], num_errors: int, warnings: list[Problem]) -> Verdict:
    if any(problem.code == "data.too_few" for problem in errors) and num_errors == 1:
        return Verdict.TOO_SMALL
    if num_errors:
        return Verdict.ERRORS
    return Verdict.WARNINGS if warnings else Verdict.OK


def _sufficiency(plan: CheckPlan, train: Count, packing: Packing | None) -> Sufficiency | None:
    options = plan.options
    return judge(
        Figures(
            recipe=plan.recipe,
            format=train.format,
            rows=len(train.kept),
            tokens=train.tokens,
            loss_tokens=train.loss_tokens,
            passes=_passes(plan, train, packing),
            run_params=options.run_params,
            trained_params=options.trained_params,
            from_scratch=options.from_scratch,
        )
    )


def _passes(plan: CheckPlan, train: Count, packing: Packing | None) -> float:
    """How often the plan's rows go through the data; 0 where there is no plan."""
    reads = sum(source.reads for source in train.sources)
    return plan.options.planned_rows / max(_sequences(plan, train, packing, reads), 1)


def _sequences(plan: CheckPlan, train: Count, packing: Packing | None, rows: int) -> int:
    """What training reads of these rows: themselves, or the sequences that they are laid into."""
    if plan.layout is Layout.JOINED:
        return train.tokens // plan.max_length
    return packing.sequences if packing is not None and plan.layout is Layout.PACKED else rows


def _packing(plan: CheckPlan, train: Count, held_out: Count | None, split: list[int]) -> Packing | None:
    """Of the rows that `prepare` will leave to learn from, laid out as it will lay them."""
    if train.tokenizer is None or train.num_errors or plan.layout is Layout.JOINED:
        return None
    out = {train.kept[position] for position in split}
    out |= held_out.digests if held_out else set[bytes]()
    lengths = train.lengths.read(position for position, digest in enumerate(train.kept) if digest not in out)
    return measured(plan.layout, lengths, plan.max_length, plan.options.batch_size)


def _chosen(plan: CheckPlan, train: Count, held_out: Count | None) -> list[int]:
    """The kept rows that `eval_fraction` will hold out, chosen here as `prepare` will choose them."""
    fraction = plan.options.eval_fraction
    if held_out is not None or fraction is None or train.num_errors or not train.kept:
        return []  # nothing kept: `_judge` says why
    if plan.layout is Layout.JOINED and len(train.digests) < MIN_DOCUMENTS:
        if any(source.weight != 1 for source in train.sources):
            sentence = f"Weights need at least {MIN_DOCUMENTS} documents to hold some out of, but there are fewer."
            fix = "Give eval_data instead of eval_fraction, or leave the weights out."
            train.error(at(None, "eval_fraction", "data.weights_need_documents", sentence, fix))
        return []  # packed rows are held out instead, which only `prepare` can lay out
    try:
        return hold_out(train.kept, fraction=fraction, most=MOST_EVAL_ROWS, topics=train.topics).held_out
    except InvalidInput as error:
        train.error(at(None, "eval_fraction", error.code, error.why.sentence, error.why.next_step))
        return []


def _near(train: Count, held_out: Count | None, split: list[int]) -> list[Pair]:
    """Training rows that are nearly, and not exactly, a held-out row."""
    if held_out is not None:
        return [
            pair
            for pair in train.sketches.near(held_out.sketches)
            if train.kept[pair.train] != held_out.kept[pair.held_out]
        ]
    out = {train.kept[position] for position in split}
    pairs = train.sketches.near(train.sketches, split)
    return [pair for pair in pairs if train.kept[pair.train] not in out]


def _near_warnings(train: Count, held_out: Count | None, near: list[Pair]) -> list[Problem]:
    found: list[Problem] = []
    if near:
        first = near[0]
        one, other = train.place(first.train), (held_out or train).place(first.held_out)
        sentence = (
            f"Nearly the same as a held-out row ({THRESHOLD:.0%} of their three-word sequences): {_rows(len(near))}, "
            f"first {one.file}:{one.line} and {other.file}:{other.line}. Held-out loss will look better than it is."
        )
        fix = "Remove them from one side, or hold out whole topics with eval_data."
        found.append(at(one, "eval_data" if held_out else "eval_fraction", "data.near_duplicates", sentence, fix))
    if train.sketches.left_out:
        sentence = (
            f"Near duplicates were looked for in the first {len(train.sketches):,} rows; "
            f"{train.sketches.left_out:,} more were compared exactly only."
        )
        found.append(at(None, "data", "data.near_unchecked", sentence, "Nothing is needed."))
    return found


def _judge(plan: CheckPlan, train: Count, held_out: Count | None, packing: Packing | None) -> None:
    """Errors that only the whole shows. Not added on top of others, whose repair may change them."""
    if train.num_errors or (held_out and held_out.num_errors):
        return
    if plan.options.overlong is Overlong.REFUSE and train.overlong:
        sentence = f"{_rows(train.overlong)} longer than {plan.max_length} tokens, and the job refuses such rows."
        fix = "Shorten them, raise params.max_length, or set params.overlong: truncate, split or drop."
        train.error(at(train.first_long, "params.overlong", "data.overlong", sentence, fix))
        return
    learnt = _sequences(plan, train, packing, len(train.kept) - train.leaked)
    if train.rows and train.all_masked == train.rows:
        sentence = f"No row has an answer left within {plan.max_length} tokens, so there is nothing to learn."
        fix = "Raise params.max_length, or check the preview: the answers may be cut off or empty."
        train.error(at(train.first_masked, "params.max_length", "data.all_masked", sentence, fix))
        return
    needed = max(plan.options.min_rows, 1) + (MIN_EVAL_ROWS if plan.options.eval_fraction else 0)
    if train.kept and not any(source.reads for source in train.sources):
        sentence = "The weights choose no row of any source, so there is nothing to learn."
        train.error(at(None, "data", "data.weight_chooses_none", sentence, "Raise the weights."))
    elif learnt < needed and train.dropped:
        sentence = (
            f"{_rows(train.dropped)} longer than {plan.max_length} tokens dropped; {learnt} left, {needed} needed."
        )
        fix = "Raise params.max_length, or set params.overlong: truncate."
        train.error(at(train.first_long, "params.overlong", "data.too_few", sentence, fix))
    elif learnt < needed:
        unit = "rows" if plan.layout is Layout.PADDED else f"rows of {plan.max_length} tokens"
        sentence = f"The data gives {max(learnt, 0)} {unit}; at least {needed} are needed."
        train.error(at(None, "data", "data.too_few", sentence, "Give more data or set a smaller batch_size."))
    elif held_out is not None and held_out.rows < MIN_EVAL_ROWS:
        sentence = f"The held-out data gives {held_out.rows} rows; at least {MIN_EVAL_ROWS} are needed."
        train.error(at(None, "eval_data", "data.too_few_held_out", sentence, "Give more held-out rows."))


def _warnings(count: Count) -> list[Problem]:
    found: list[Problem] = [*_length_warnings(count)]
    if count.leaked:
        sentence = f"Held out and in the training data: {_rows(count.leaked)}; left out of training."
        found.append(at(count.first_leak, "eval_data", "data.eval_leak", sentence, "Remove them from one side."))
    if count.duplicates:
        sentence = f"Repeating an earlier row exactly: {_rows(count.duplicates)}."
        found.append(at(None, "data", "data.duplicates", sentence, "Remove them if they are not meant."))
    for key, (row, times) in count.ignored.items():
        sentence = f"The key {key!r} is not read; it stands in {_rows(times)}."
        found.append(at(row, key, "data.ignored_key", sentence, "Remove it, or leave it: it changes nothing."))
    for source in count.sources:
        if source.rows and not source.reads:
            sentence = (
                f"No row of {source.name} is read: its weight of {source.weight:g} chooses none of {source.rows:,}."
            )
            found.append(at(None, "data", "data.weight_chooses_none", sentence, "Raise its weight."))
    options = count.plan.options
    unknown = count.tokenizer is None and options.has_template is None
    if unknown and count.is_conversational and options.chat_template == "model":
        sentence = "The rows are conversations; whether the model will have a chat template is not known yet."
        fix = "Set params.chat_template: chatml if an earlier stage makes the model from nothing."
        found.append(at(None, "chat_template", "template.unknown_yet", sentence, fix))
    tokenizer = count.tokenizer
    if tokenizer is not None and tokenizer.template is not None and tokenizer.template.uses_date and count.rows:
        sentence = "The chat template writes today's date; a fixed one is used, so that results can be repeated."
        found.append(at(None, "chat_template", "template.date", sentence, "Nothing is needed."))
    return found


def _length_warnings(count: Count) -> list[Problem]:
    found: list[Problem] = []
    most, of = count.plan.max_length, f"{count.rows:,} rows"
    if count.all_masked:
        sentence = f"{count.all_masked:,} of {of} have no answer left within max_length; they are left out."
        fix = "Raise params.max_length, or shorten their prompts."
        found.append(at(count.first_masked, "params.max_length", "data.masked_rows", sentence, fix))
    if count.truncated and count.plan.options.overlong is not Overlong.REFUSE:
        sentence = f"{count.truncated:,} of {of} are cut to {most} tokens."
        found.append(at(None, "params.max_length", "data.truncated_rows", sentence, "Raise params.max_length."))
    if count.split:
        sentence = f"{count.split:,} of {of} are split into rows of {most} tokens."
        fix = "Nothing is needed; params.overlong: truncate would keep their beginnings only."
        found.append(at(None, "params.overlong", "data.split_rows", sentence, fix))
    if count.dropped:
        sentence = f"{count.dropped:,} of {of} are longer than {most} tokens and dropped."
        fix = "Raise params.max_length, or set params.overlong: truncate."
        found.append(at(count.first_long, "params.overlong", "data.dropped_rows", sentence, fix))
    return found


def _rows(number: int) -> str:
    return f"{number:,} row{'s' if number != 1 else ''}"


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
