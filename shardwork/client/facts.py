"""Measuring a stage's files: rows, tokens, parameters and bytes, which prices and plans come from.

Reads data through `shardwork.dataset` and models through `shardwork.models.folder`; nothing is uploaded and torch is
never imported. A stage that reads an earlier stage's output is measured by that stage's facts. Used by `plan` and by
`data check`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..dataset import DataReport, check_data
from ..dataset.check import CheckOptions
from ..dataset.lengths import Layout, Overlong, layout
from ..dataset.line import Source
from ..dataset.mapping import unknown_name
from ..dataset.row import Format, Row
from ..dataset.source import source_files
from ..dataset.staged import travels_as_it_is
from ..dataset.sufficiency import Size
from ..dataset.template import NAMED
from ..errors import InvalidInput, ShardworkError
from ..jobs.file import LoadedJob
from ..jobs.paths import SourceFiles, StageFiles
from ..jobs.spec import STAGE_OUTPUT, StageSpec
from ..jobs.together import check_answers_fit, check_together
from ..models.architectures import check_packable
from ..models.checkpoint import CheckpointFacts, inspect_checkpoint
from ..models.folder import ModelFacts, inspect_model
from ..models.hub import is_remote
from ..models.presets import check_preset, preset_params
from ..problem import Problem, suggest
from ..recipes import recipe as find_recipe
from ..recipes.alignment.people import params_of
from ..recipes.alignment.phases.askable import wrong_row
from ..recipes.alignment.tuned import Tuned
from ..recipes.base import StageFacts
from ..recipes.learning import LearningRecipe
from ..recipes.measure import trained_params
from ..recipes.method import MethodChoice
from ..recipes.sft import method_choice, with_method
from ..v1 import jobs_pb2
from ..why import Why
from .progress import OnProgress, told

#: what `auto` becomes, see `shardwork.recipes.learning`
DEFAULT_MAX_LENGTH = 256
#: the shortest row with something to predict
LEAST_LENGTH = 2
#: less is read before anybody could look at how far it is
TOLD_FROM_BYTES = 4 << 20


class DataInvalid(InvalidInput):
    """Rows of a stage cannot be used; `problems` holds them all."""

    def __init__(self, stage: str, report: DataReport) -> None:
        self.problems = report.errors
        first = self.problems[0]
        super().__init__(
            "data.invalid",
            f"The data of stage {stage!r} has {report.num_errors} problem(s). The first: {first.sentence}",
            next_step=first.fix,
            file=first.file,
            line=first.line or "",
            key=first.key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMeasure:
    """One stage as measured."""

    stage: StageSpec
    files: StageFiles
    facts: StageFacts
    #: None when the rows come from an earlier stage
    report: DataReport | None
    #: of the base, also when an earlier stage or a preset makes it; None for stages without a model
    model: ModelFacts | None
    #: why `method: auto` became what it is; None where the job named its method
    choice: MethodChoice | None = None
    #: with `method: auto` as it was written; another method may need keys that the chosen one has no use for
    asked: StageSpec | None = None
    #: the checkpoint on this machine that it continues from
    parent: CheckpointFacts | None = None

    @property
    def keeps_moments(self) -> bool:
        """Whether Adam's moments of its local checkpoint go on with the weights."""
        return self.parent is not None and self.parent.has_moments and self.parent.method == self.method

    @property
    def method(self) -> str:
        """How its model learns, where its recipe leaves that unsaid too; empty: it does not learn."""
        kind = find_recipe(self.stage.recipe)
        if not isinstance(kind, LearningRecipe):
            return ""
        return kind.tuning(kind.freeze(self.stage, self.facts).params).method.value

    @property
    def chosen(self) -> tuple[tuple[str, str, str], ...]:
        """(key, value, why) of each parameter that the job leaves to us."""
        kind = find_recipe(self.stage.recipe)
        return kind.chosen(self.stage, self.facts) if isinstance(kind, LearningRecipe) else ()

    @property
    def is_local(self) -> bool:
        """Whether its rows lie on this machine (and are not another stage's, counted there)."""
        return self.report is not None

    @property
    def format(self) -> str:
        return self.report.written if self.report else ""

    @property
    def warnings(self) -> list[Why]:
        """What the files may want, and why the data may be too little."""
        fresh = [] if self.parent is None or self.keeps_moments else [_fresh_moments(self.stage.name, self.parent)]
        if self.report is None:
            return fresh
        enough = self.report.sufficiency
        doubts = enough.reasons if enough is not None and enough.size is not Size.TRAINING else ()
        told = [problem_why(doubt) for doubt in doubts if doubt.fix]
        return [problem_why(problem) for problem in self.report.warnings] + told + fresh

    def wire_facts(self) -> jobs_pb2.StageFacts:
        facts = self.facts
        return jobs_pb2.StageFacts(
            stage=self.stage.name,
            rows=facts.rows,
            tokens=facts.tokens,
            run_params=facts.run_params,
            trained_params=facts.trained_params,
            input_bytes=facts.input_bytes,
        )


def measure_stages(loaded: LoadedJob, *, on_progress: OnProgress | None = None) -> list[StageMeasure]:
    """Every stage in order. Raises DataInvalid, and InvalidInput of a model that cannot be trained."""
    #: by every name that a stage is known by; a loop's stage also by its plain one
    done: dict[str, StageMeasure] = {}
    for stage in loaded.spec.stages:
        try:
            measured = _measure(stage, loaded.files.get(stage.name, StageFiles()), done, on_progress)
            done |= dict.fromkeys(loaded.spec.names_of(stage.name), measured)
        except InvalidInput as error:
            raise _placed(error, loaded, stage.name) from None
    try:
        check_together(loaded.spec, loaded.files)
    except InvalidInput as error:
        raise _placed(error, loaded, error.why.evidence.get("stage", "")) from None
    return [done[stage.name] for stage in loaded.spec.stages]


def _placed(error: InvalidInput, loaded: LoadedJob, stage: str) -> ShardworkError:
    """The same error, and where in the job file its key stands, if it does; keys of rows have places of their own."""
    key = error.why.evidence.get("key", "")
    is_of_stage = key.startswith(("params.", "continue_from", "models."))
    return placed(error, loaded, stage) if is_of_stage else error


def placed(error: InvalidInput, loaded: LoadedJob, stage: str) -> ShardworkError:
    """An error about a key of this stage, with the key's place in the job file."""
    why = error.why
    key = why.evidence.get("key", "")
    if not key or why.evidence.get("file") or stage not in {each.name for each in loaded.spec.stages}:
        return error
    evidence = {**why.evidence, **loaded.place(stage, key)}
    return InvalidInput.from_why(Why(code=why.code, sentence=why.sentence, evidence=evidence, next_step=why.next_step))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """What `data check` is asked: files outside any job."""

    files: Sequence[Path]
    #: None: any recipe
    recipe: str | None = None
    base_model: Path | None = None
    max_length: int | None = None
    eval_files: Sequence[Path] = ()
    eval_fraction: float | None = None
    #: our key -> the files' own
    mapping: Mapping[str, str] = field(default_factory=dict[str, str])
    format: str | None = None
    overlong: str = "auto"
    #: "model", or the name of a template of ours for a base that has none
    chat_template: str = "model"


def check_files(asked: CheckRequest, *, on_progress: OnProgress | None = None) -> DataReport:
    """`data check`: the report. Raises InvalidInput for values that no job could have."""
    if asked.recipe is not None:
        find_recipe(asked.recipe)
    _check_names(asked)
    max_length, model = asked.max_length, None
    if asked.base_model is not None:
        model = inspect_model(asked.base_model)
        max_length = fit_length(max_length or "auto", model, key="--max-length")

    def source(path: Path) -> Source:
        return Source(files=(path,), name=str(path), mapping=asked.mapping, format=asked.format)

    return check_data(
        [source(path) for path in asked.files],
        recipe=asked.recipe,
        model_folder=asked.base_model,
        max_length=max_length or DEFAULT_MAX_LENGTH,
        eval_files=[source(path) for path in asked.eval_files],
        options=CheckOptions(
            eval_fraction=asked.eval_fraction,
            overlong=Overlong(asked.overlong),
            chat_template=asked.chat_template,
            run_params=model.run_params if model else 0,
            progress=_reading([*asked.files, *asked.eval_files], on_progress),
        ),
    )


def _check_names(asked: CheckRequest) -> None:
    wrong = unknown_name(asked.mapping)
    if wrong is not None:
        sentence = f"No format has a key {wrong[0]!r} to map to."
        raise InvalidInput("data.unknown_name", sentence, next_step=wrong[1], key="--map")
    for key, value, known in (
        ("--format", asked.format or "text", [str(each) for each in Format]),
        ("--overlong", asked.overlong, [str(each) for each in Overlong]),
        ("--chat-template", asked.chat_template, ["model", *sorted(NAMED)]),
    ):
        if value not in known:
            sentence = f"There is no {key.removeprefix('--')} {value!r}."
            raise InvalidInput("data.unknown_name", sentence, next_step=suggest(value, known, what="values"), key=key)
    length, fraction = asked.max_length, asked.eval_fraction
    # a program may hand in what its types forbid
    if length is not None and (type(length) is not int or length < LEAST_LENGTH):
        sentence = f"Rows have a whole number of tokens, {LEAST_LENGTH} or more, and not {length!r}."
        raise InvalidInput("data.bad_length", sentence, next_step="Give --max-length 256.", key="--max-length")
    if fraction is not None and not 0 < fraction < 0.5:
        sentence = f"The share of rows to hold out lies between 0 and 0.5, and is not {fraction!r}."
        raise InvalidInput("data.bad_fraction", sentence, next_step="Give 0.05.", key="--eval-fraction")
    if asked.eval_files and fraction is not None:
        raise InvalidInput(
            "data.held_out_twice",
            "Rows are held out by files or by a fraction, not by both.",
            next_step="Give --eval-data or --eval-fraction.",
            key="--eval-fraction",
        )


def sources_of(given: Sequence[SourceFiles]) -> list[Source]:
    """A stage's data as the row reader takes it; an item keeps its place, by which its weight is found again."""
    return [
        Source(files=item.files, name=item.path, mapping=item.mapping, format=item.format, weight=item.weight)
        for item in given
    ]


def _reading(files: Sequence[Path], on_progress: OnProgress | None) -> Callable[[int, int], None] | None:
    """Tells how far the rows of these files are read; None when there is too little to tell about."""
    if sum(file.stat().st_size for file in files if file.is_file()) < TOLD_FROM_BYTES:
        return None
    return told(on_progress, "reading rows")


def fit_length(max_length: int | str, model: ModelFacts, *, key: str, default: int = DEFAULT_MAX_LENGTH) -> int:
    """Tokens a row: what was asked for, or for `auto` the default or the model's limit.

    Raises InvalidInput "model.max_length": a worker would refuse such rows, and by then sats are spent.
    """
    limit = model.context_length
    if not isinstance(max_length, int):
        return min(default, limit or default)
    if limit is not None and max_length > limit:
        raise InvalidInput(
            "model.max_length",
            f"Rows of {max_length} tokens do not fit the model: it has {limit} positions.",
            next_step=f"Set {key} to {limit} or less.",
            key=key,
        )
    return max_length


def problem_why(problem: Problem) -> Why:
    """A problem of a file as a reason, its place as evidence."""
    evidence = {"file": problem.file, "line": str(problem.line or ""), "key": problem.key}
    known = {key: value for key, value in evidence.items() if value}
    return Why(code=problem.code, sentence=problem.sentence, evidence=known, next_step=problem.fix)


def _measure(
    stage: StageSpec, files: StageFiles, done: Mapping[str, StageMeasure], on_progress: OnProgress | None
) -> StageMeasure:
    model = _model_of(stage, files, done)
    if model is not None and stage.base_model is not None:
        stage = _fitted(stage, model)
    kind = find_recipe(stage.recipe)
    frozen = kind.freeze(stage, StageFacts(run_params=model.run_params if model else 0))
    if model is not None and layout(frozen.params.get("packing", False), stage.recipe) is Layout.PACKED:
        check_packable(model.model_type)
    check_answers_fit(stage, frozen.params, _positions(model, stage, files, done))
    report = _report_of(frozen, files, model, on_progress)
    made_rows, made_tokens = _rows_of(stage, done)
    facts = StageFacts(
        rows=(report.rows if report else 0) + made_rows,
        tokens=(report.tokens if report else 0) + made_tokens,
        run_params=model.run_params if model else 0,
        input_bytes=_input_bytes(stage, files, model, report),
    )
    choice, asked = method_choice(stage, facts) if stage.recipe == "sft" else None, stage
    # the method that was chosen is part of what is agreed to, so it travels
    stage = with_method(stage, facts) if choice else stage
    facts = replace(facts, trained_params=_trained(model, kind.freeze(stage, facts)))
    if model is not None and frozen.params.get("chat_template", "model") != "model":
        model = replace(model, has_chat_template=True)  # a stage publishes the template that its rows had
    parent = _parent_of(stage, files, facts)
    if parent is not None:
        sent = sum((parent.folder / name).stat().st_size for name in parent.files)
        facts = replace(facts, input_bytes=facts.input_bytes + sent)
    return StageMeasure(
        stage=stage, files=files, facts=facts, report=report, model=model, choice=choice, asked=asked, parent=parent
    )


def _parent_of(stage: StageSpec, files: StageFiles, facts: StageFacts) -> CheckpointFacts | None:
    """The local checkpoint. Raises InvalidInput "continue.*": a worker would find out when sats are spent."""
    if files.continue_from is None:
        return None
    parent = inspect_checkpoint(files.continue_from)
    if parent.params == facts.trained_params:
        return parent
    raise InvalidInput(
        "continue.unlike",
        f"Stage {stage.name!r} can't continue from {stage.continue_from!r}: it holds {parent.params:,} parameters, and "
        f"{facts.trained_params:,} learn here.",
        next_step="Use the earlier stage's base_model, method and adapter settings (rank, alpha, modules, layers).",
        stage=stage.name,
        key="continue_from",
    )


def _fresh_moments(stage: str, parent: CheckpointFacts) -> Why:
    why = f"its stage learned by method {parent.method}" if parent.has_moments else "it holds none"
    return Why(
        code="continue.weights_only",
        sentence=f"Stage {stage!r} takes only the weights of its checkpoint, and Adam's moments begin anew: {why}.",
        next_step="Nothing to do: the first steps of Adam are larger, so some warm-up helps.",
    )


def with_other_method(measured: StageMeasure, method: str) -> StageMeasure:
    """The same stage by another method. Raises InvalidInput where the model or the job's other keys forbid it."""
    stage = with_method(measured.asked or measured.stage, measured.facts, method)
    frozen = find_recipe(stage.recipe).freeze(stage, measured.facts)
    return replace(
        measured, stage=stage, facts=replace(measured.facts, trained_params=_trained(measured.model, frozen))
    )


def _fitted(stage: StageSpec, model: ModelFacts) -> StageSpec:
    """The stage with a max_length that its base model can read; as written where that already holds."""
    asked = stage.params.get("max_length", "auto")
    field = find_recipe(stage.recipe).Params.model_fields.get("max_length")
    default = field.default if field is not None and isinstance(field.default, int) else DEFAULT_MAX_LENGTH
    length = fit_length(asked, model, key="params.max_length", default=default)
    if length in (asked, default):
        return stage
    return stage.model_copy(update={"params": {**stage.params, "max_length": length}})


def _positions(
    model: ModelFacts | None, stage: StageSpec, files: StageFiles, done: Mapping[str, StageMeasure]
) -> int | None:
    """Of the model of the stage that reads least; None: nothing says it."""
    others: list[ModelFacts | None] = [inspect_model(folder, reward=True) for folder in files.models.values()]
    others += [
        done[made].model for made in (named.partition(".")[0] for named in stage.models.values()) if made in done
    ]
    known = [one.context_length for one in (model, *others) if one is not None and one.context_length is not None]
    return min(known, default=None)


def _model_of(stage: StageSpec, files: StageFiles, done: Mapping[str, StageMeasure]) -> ModelFacts | None:
    """The model a stage works on: its folder, an earlier stage's model, or a preset."""
    if files.base_model is not None:
        return inspect_model(files.base_model)
    if stage.base_model is not None and STAGE_OUTPUT.match(stage.base_model):
        return done[stage.base_model.partition(".")[0]].model
    preset = stage.params.get("preset")
    if not isinstance(preset, str):
        return None
    params = find_recipe(stage.recipe).freeze(stage, StageFacts()).params
    made = preset_model(preset, int(params["vocab_size"]))
    # the preset's own limit grows to the rows that it learns from
    return replace(made, context_length=max(made.context_length or 0, int(params["max_length"])))


def preset_model(name: str, vocab_size: int) -> ModelFacts:
    """A preset's shapes as `inspect_model` will find them once the first stage has made the model."""
    preset = check_preset(name)
    hidden, wide = preset.hidden, preset.intermediate
    narrow = preset.kv_heads * (hidden // preset.heads)
    shapes = {
        **{f"self_attn.{part}_proj": (hidden, hidden) for part in "qo"},
        **{f"self_attn.{part}_proj": (narrow, hidden) for part in "kv"},
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }
    layers = [f"model.layers.{number}" for number in range(preset.layers)]
    linear = tuple((f"{layer}.{part}.weight", shape) for layer in layers for part, shape in shapes.items())
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab_size, hidden), **dict(linear)}
    for layer in layers:
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}.{norm}.weight"] = (hidden,)
    tensors["model.norm.weight"] = (hidden,)
    if not preset.tied:
        tensors["lm_head.weight"] = (vocab_size, hidden)
    return ModelFacts(
        folder=Path(),
        model_type="llama",
        architecture="LlamaForCausalLM",
        run_params=preset_params(name, vocab_size),
        linear_params=linear,
        tensors=tensors,
        hidden_size=hidden,
        layers=preset.layers,
        tied_embeddings=preset.tied,
        vocab_size=vocab_size,
        context_length=preset.context,
        has_chat_template=False,
        files=(),
    )


def _trained(model: ModelFacts | None, stage: StageSpec) -> int:
    """Parameters that an update of this (frozen) stage touches."""
    if model is None:
        return 0
    kind = find_recipe(stage.recipe)
    return trained_params(model, kind.tuning(stage.params)) if isinstance(kind, LearningRecipe) else model.run_params


def _report_of(
    stage: StageSpec, files: StageFiles, model: ModelFacts | None, on_progress: OnProgress | None
) -> DataReport | None:
    """The data's report; None when an earlier stage makes the rows. Raises DataInvalid."""
    if not files.data:
        return None
    params, plan = stage.params, stage.plan
    max_length = params.get("max_length", DEFAULT_MAX_LENGTH)
    learns = isinstance(find_recipe(stage.recipe), LearningRecipe)
    rows = plan.rounds * plan.shards_per_round * plan.inner_steps * params.get("batch_size", 1)
    kind = find_recipe(stage.recipe)
    asked = kind.prepared(params) if isinstance(kind, Tuned) else {}
    options = CheckOptions(
        chat_template=params.get("chat_template", "model"),
        train_on_prompt=params.get("train_on_prompt", False),
        packing=params.get("packing", "auto"),
        batch_size=min(params.get("batch_size", 8), params.get("micro_batch_size", 8)),
        overlong=Overlong(params.get("overlong", "auto")),
        eval_fraction=stage.eval_fraction,
        progress=_reading([*files.data, *files.eval_data], on_progress),
        planned_rows=rows if learns else 0,
        run_params=model.run_params if model else 0,
        trained_params=_trained(model, stage) if learns else 0,
        from_scratch=stage.base_model is None,
        has_template=None if model is None or files.base_model is not None else model.has_chat_template,
        rows_are=str(asked.get("rows_are", "")),
        row_keys=tuple(asked.get("row_keys", ())),
        wrong_row=_wrong_row(stage),
    )
    report = check_data(
        sources_of(files.sources),
        recipe=stage.recipe,
        model_folder=files.base_model,
        max_length=max_length,
        eval_files=sources_of(files.eval_sources),
        options=options,
    )
    if report.errors:
        raise DataInvalid(stage.name, report)
    return report


def _wrong_row(stage: StageSpec) -> Callable[[Row], Problem | None] | None:
    if stage.recipe != "people":
        return None
    params = params_of(stage)
    return lambda row: wrong_row(row, params.kind, params.shown)


def _rows_of(stage: StageSpec, done: Mapping[str, StageMeasure]) -> tuple[int, int]:
    """Rows and tokens of the earlier stages that this stage reads."""
    sources = [done[name.partition(".")[0]].facts for name in stage.data_paths if STAGE_OUTPUT.match(name)]
    return sum(facts.rows for facts in sources), sum(facts.tokens for facts in sources)


def _input_bytes(stage: StageSpec, files: StageFiles, model: ModelFacts | None, report: DataReport | None) -> int:
    """Bytes that will be uploaded for this stage."""
    counted = (*report.sources, *report.eval_sources) if report else ()
    read = source_files(sources_of(files.sources)) + source_files(sources_of(files.eval_sources))
    paths = [file.path for file in read if travels_as_it_is(file)]
    is_mirrored = is_remote(stage.base_model)
    if files.base_model is not None and model is not None and not is_mirrored:
        paths += [files.base_model / name for name in model.files]
    return sum(path.stat().st_size for path in paths) + sum(source.converted_bytes for source in counted)
