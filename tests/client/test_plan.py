"""data check, job validate and job plan: what is measured, what is shown, and what is refused before a sat moves."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from shardwork.client import received
from shardwork.jobs.spec import JobSpec
from shardwork.v1 import jobs_pb2
from shardwork_client.data_page import row_text
from shardwork_client.price_page import Phases

from . import tiny_model
from .conftest import Run, error_of, json_of
from .fake_coordinator import Fake, why

PLAN_KEYS = {
    *("shards", "rounds", "estimate_msat", "compute_msat", "verification_msat", "fees_msat", "reserve_msat"),
    *("estimated_seconds", "detected_format", "rows", "tokens", "warnings"),
}


def unbroken(page: str) -> str:
    """The page with paths in one piece: one that is longer than a line goes on in the next, behind two blanks."""
    return page.replace("\n  ", "")


@pytest.fixture
def priced(fake: Fake) -> Fake:
    fake.available_msat = 5_000_000
    fake.quote = jobs_pb2.Quote(
        shards=9,
        rounds=2,
        estimate_low_msat=1_100_000,
        estimate_high_msat=1_400_000,
        compute_msat=900_000,
        verification_msat=180_000,
        fees_msat=21_600,
        reserve_msat=1_500_000,
        seconds_low=110,
        seconds_high=260,
        upload_bytes_per_shard=17_700_000,
        download_bytes_per_shard=4_700_000,
        warnings=[why("plan.self_evaluated", "Only one worker is connected.", next_step="Ask for another.")],
    )
    return fake


def test_plan_json_has_the_contract_s_keys(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    plan = json_of(logged_in("job", "plan", tiny_model.write_job(tmp_path), "--json"))
    assert set(plan) >= PLAN_KEYS
    assert plan["estimate_msat"] == {"low": 1_100_000, "high": 1_400_000}
    assert plan["estimated_seconds"] == {"low": 110, "high": 260}
    assert plan["detected_format"] == "prompt-completion"
    assert plan["rows"] == 40
    assert plan["tokens"] > 40
    assert [warning["code"] for warning in plan["warnings"]] == ["data.rag_sized", "plan.self_evaluated"]
    assert plan["stages"][0]["sufficiency"]["verdict"] == "RAG-sized"


def test_the_coordinator_is_told_what_was_measured(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    logged_in("job", "plan", tiny_model.write_job(tmp_path), "--json")
    (request,) = priced.quoted
    (facts,) = request.facts
    assert facts.stage == "sft"
    assert facts.rows == 40
    assert facts.run_params == tiny_model.num_params()
    assert facts.trained_params == 2 * tiny_model.LORA_PARAMS_PER_RANK
    travelling = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    model = sum((tmp_path / "models" / "tiny" / name).stat().st_size for name in travelling)
    data = sum((tmp_path / "data" / name).stat().st_size for name in ("train.jsonl", "valid.jsonl"))
    assert facts.input_bytes == model + data
    assert JobSpec.model_validate_json(request.spec_json).name == "tutor"


def test_the_page_shows_price_cap_time_bytes_rows_and_warnings(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    result = logged_in("job", "plan", tiny_model.write_job(tmp_path))
    assert result.exit_code == 0, result.stderr
    for text in (
        *("tutor", "sft · 2 rounds · 9 shards", "40 rows of prompt-completion", "(lora)"),
        *(
            "What is 0?« It is 0.<eos>»",
            "between « and » is learned",
            "900 sat",
            "180 sat",
            "21.6 sat",
            "1,100 – 1,400 sat",
        ),
        *("1,500 sat", "2,000 sat", "5,000 sat", "1 min 50 s – 4 min 20 s", "17.7 MB up, 4.7 MB down"),
        *("Only one worker is connected.", "Ask for another."),
    ):
        assert text in result.stdout, text
    assert "shardwork job submit" in result.stderr


def phases(*, stages: int = 1) -> list[jobs_pb2.PhasePrice]:
    """As a coordinator prices them: learn at 1,500 msat a shard, everything else at the least price."""
    rows = [
        ("init", 1, 1, 2, 1_000, 2_040, 3_060),
        ("learn", 4, 8, 1, 1_500, 48_960, 61_200),
        ("evaluate", 4, 1, 2, 1_000, 8_160, 12_240),
        ("publish", 1, 1, 2, 1_000, 2_040, 3_060),
    ]
    return [
        jobs_pb2.PhasePrice(
            stage=f"stage{number}",
            phase=phase,
            rounds=rounds,
            shards=shards,
            copies=copies,
            work_units=150 * price,
            price_msat=price,
            fee_msat=price // 50,
            total_msat=total,
            reserve_msat=reserve,
        )
        for number in range(stages)
        for phase, rounds, shards, copies, price, total, reserve in rows
    ]


def test_json_has_each_phase_s_price_and_the_rates(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    priced.quote.phases.extend(phases())
    priced.quote.msat_per_tera_unit, priced.quote.minimum_shard_msat, priced.quote.fee_basis_points = 10, 1_000, 200
    plan = json_of(logged_in("job", "plan", tiny_model.write_job(tmp_path), "--json"))
    assert [each["phase"] for each in plan["phases"]] == ["init", "learn", "evaluate", "publish"]
    assert plan["phases"][1] == {
        "stage": "stage0",
        "phase": "learn",
        "rounds": 4,
        "shards": 8,
        "copies": 1,
        "work_units": 225_000,
        "price_msat": 1_500,
        "fee_msat": 30,
        "total_msat": 48_960,
        "reserve_msat": 61_200,
    }
    assert (plan["msat_per_tera_unit"], plan["minimum_shard_msat"], plan["fee_basis_points"]) == (10, 1_000, 200)


def drawn(quote: jobs_pb2.Quote, width: int) -> list[str]:
    """The table of phases as a console of this width shows it."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(Phases(received.quote(quote)))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize(
    ("width", "learn"),
    [
        (80, "learn 4 8 1 1.5 0.03 48.96 sat 61.2 sat"),
        (50, "learn 32 1.53 48.96 sat"),
    ],
)
def test_a_line_a_phase_that_fits_the_terminal(priced: Fake, width: int, learn: str) -> None:
    priced.quote.phases.extend(phases())
    priced.quote.msat_per_tera_unit, priced.quote.minimum_shard_msat, priced.quote.fee_basis_points = 10, 1_000, 200
    lines = drawn(priced.quote, width)
    assert " ".join(lines[2].split()) == learn
    assert max(len(line) for line in lines) <= width and "…" not in "".join(lines)
    rate = "a shard costs 0.01 sat for 10^12 work units, at least 1 sat, and 2 % fee"
    assert " ".join(" ".join(lines[5:]).split()) == rate


def test_phases_of_several_stages_name_theirs_and_a_long_list_is_cut(priced: Fake) -> None:
    priced.quote.phases.extend(phases(stages=32))
    for width in (80, 50):
        lines = drawn(priced.quote, width)
        assert lines[1].split() == ["stage0"] and lines[2].startswith("    init") and lines[6].split() == ["stage1"]
        assert "  and 88 more phases; --json lists all" in lines


def test_the_page_has_the_phases_and_one_of_an_older_coordinator_has_none(
    logged_in: Run, priced: Fake, tmp_path: Path
) -> None:
    job = tiny_model.write_job(tmp_path)
    assert "10^12" not in logged_in("job", "plan", job).stdout
    priced.quote.phases.extend(phases())
    assert "evaluate" in logged_in("job", "plan", job).stdout


def test_a_budget_below_the_plan_is_exit_3_after_showing_it(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    result = logged_in("job", "plan", tiny_model.write_job(tmp_path, budget_sats=100), "--json")
    assert result.exit_code == 3
    assert error_of(result)["code"] == "budget.below_plan"
    assert "1500" in error_of(result)["next_step"]
    assert json.loads(result.stdout)["reserve_msat"] == 1_500_000


def test_a_wallet_below_the_plan_is_exit_6_and_says_how_much_is_missing(
    logged_in: Run, priced: Fake, tmp_path: Path
) -> None:
    priced.available_msat = 1_000_500
    result = logged_in("job", "plan", tiny_model.write_job(tmp_path))
    assert result.exit_code == 6
    assert "shardwork wallet deposit 500" in result.stderr


def test_two_stages_share_facts_through_their_outputs(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("Once upon a time there was a marketplace. " * 400)
    (tmp_path / "chat.jsonl").write_text('{"text": "Hello there, how are you?"}\n' * 40)
    job = tmp_path / "two.yaml"
    job.write_text(
        "name: two\n"
        "stages:\n"
        "- {name: base, recipe: pretrain, data: book.txt, params: {preset: tiny-1m, max_length: 32}}\n"
        "- {name: tune, recipe: sft, base_model: base.model, data: chat.jsonl, params: {method: lora, rank: 4}}\n"
        "trust: {class: public}\n"
        "budget: {max_sats: 5000}\n"
    )
    result = logged_in("job", "plan", job, "--json")
    assert result.exit_code == 0, result.stderr
    base, tune = priced.quoted[0].facts
    from shardwork.models.presets import PRESETS, preset_params

    assert base.run_params == base.trained_params == preset_params("tiny-1m", PRESETS["tiny-1m"].vocab)
    assert tune.run_params == base.run_params
    preset = PRESETS["tiny-1m"]
    widths = 4 * 2 * preset.hidden + 3 * (preset.hidden + preset.intermediate)
    assert tune.trained_params == 4 * preset.layers * widths


def test_conversations_for_a_model_from_nothing_are_refused_before_it_is_paid_for(
    logged_in: Run, priced: Fake, tmp_path: Path
) -> None:
    """No preset has a chat template; a stage that brings one hands it on with its model."""
    (tmp_path / "book.txt").write_text("Once upon a time there was a marketplace. " * 400)
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    (tmp_path / "chat.jsonl").write_text(f"{json.dumps(talk)}\n" * 40)
    job = tmp_path / "three.yaml"
    text = (
        "name: three\n"
        "stages:\n"
        "- {name: base, recipe: pretrain, data: book.txt, params: {preset: tiny-1m, max_length: 32}}\n"
        "- {name: tune, recipe: sft, base_model: base.model, data: chat.jsonl, params: {method: full, TEMPLATE}}\n"
        "- {name: more, recipe: sft, base_model: tune.model, data: chat.jsonl}\n"
        "trust: {class: public}\n"
        "budget: {max_sats: 5000}\n"
    )
    job.write_text(text.replace(", TEMPLATE", ""))
    refused = logged_in("job", "plan", job, "--json")
    assert refused.exit_code == 3 and not priced.quoted
    assert "chat_template: chatml" in error_of(refused)["next_step"]
    job.write_text(text.replace("TEMPLATE", "chat_template: chatml"))
    planned = logged_in("job", "plan", job, "--json")
    assert planned.exit_code == 0, planned.stderr
    assert not [each for each in json_of(planned)["warnings"] if each["code"].startswith("template.")]


def test_a_preset_s_shapes_add_up_to_its_parameters() -> None:
    from shardwork.client.facts import preset_model
    from shardwork.models.presets import PRESETS, preset_params

    for name in PRESETS:
        model = preset_model(name, 4096)
        total = 0
        for shape in model.tensors.values():
            size = 1
            for length in shape:
                size *= length
            total += size
        assert total == preset_params(name, 4096) == model.run_params


def test_bad_rows_stop_the_plan_with_every_place(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    job = tiny_model.write_job(tmp_path)
    with (tmp_path / "data" / "train.jsonl").open("a") as file:
        file.write('{"prompt": "x", "complation": "y"}\n{broken\n')
    result = logged_in("job", "plan", job, "--json")
    assert result.exit_code == 3
    error = error_of(result)
    assert [problem["line"] for problem in error["errors"]] == [41, 42]
    assert priced.quoted == []
    human = "".join(logged_in("job", "plan", job).stderr.split())  # a long path goes on in the next line
    assert "train.jsonl:41" in human and "train.jsonl:42" in human and "completion" in human


def test_validate_needs_no_coordinator(run: Run, tmp_path: Path) -> None:
    job = tiny_model.write_job(tmp_path)
    told = json_of(run("job", "validate", job, "--json"))
    assert told["valid"] is True and told["stages"] == [{"name": "sft", "recipe": "sft"}]
    result = run("job", "validate", job)
    assert "tutor: sft, 2 rounds of 2 shards" in result.stderr


def test_validate_names_every_wrong_key_with_line_and_nearest(run: Run, tmp_path: Path) -> None:
    job = tiny_model.write_job(tmp_path, extra="parms: {rank: 2}\nevl_data: x\n")
    result = run("job", "validate", job)
    assert result.exit_code == 3
    shown = unbroken(result.stderr)
    assert "job.yaml:10: parms" in shown and "params" in shown
    assert "job.yaml:11: evl_data" in shown
    problems = error_of(run("job", "validate", job, "--json"))["errors"]
    assert [problem["key"] for problem in problems] == ["parms", "evl_data"]


def test_a_stage_that_its_recipe_cannot_run_is_refused(run: Run, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    (tmp_path / "book.txt").write_text("text")
    job.write_text("name: x\nrecipe: pretrain\ndata: book.txt\ntrust: {class: public}\nbudget: {max_sats: 1}\n")
    result = run("job", "validate", job, "--json")
    assert result.exit_code == 3
    assert error_of(result)["code"] == "pretrain.base_or_preset"


def test_a_missing_job_file_is_exit_3(run: Run, tmp_path: Path) -> None:
    result = run("job", "validate", tmp_path / "nope.yaml")
    assert result.exit_code == 3
    assert "nope.yaml" in unbroken(result.stderr)


def with_length(tmp_path: Path, positions: int, max_length: str) -> Path:
    """The tiny job on a model of so many positions, with this line for its max_length."""
    job = tiny_model.write_job(tmp_path)
    config = tmp_path / "models" / "tiny" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": positions}))
    job.write_text(job.read_text().replace(", max_length: 64", max_length))
    return job


def test_rows_longer_than_the_model_are_refused_before_a_sat_moves(
    logged_in: Run, priced: Fake, tmp_path: Path
) -> None:
    result = logged_in("job", "plan", with_length(tmp_path, 32, ", max_length: 64"), "--json")
    assert result.exit_code == 3
    error = error_of(result)
    assert error["code"] == "model.max_length" and "32" in error["next_step"]
    assert error["evidence"] == {"key": "params.max_length", "file": str(tmp_path / "job.yaml"), "line": "6"}
    assert priced.quoted == []


@pytest.mark.parametrize(("positions", "sent"), [(32, 32), (512, None)])
def test_the_default_length_fits_the_model_and_travels_where_it_had_to(
    positions: int, sent: int | None, logged_in: Run, priced: Fake, tmp_path: Path
) -> None:
    result = logged_in("job", "plan", with_length(tmp_path, positions, ""), "--json")
    assert result.exit_code == 0, result.stderr
    (stage,) = JobSpec.model_validate_json(priced.quoted[0].spec_json).stages
    assert stage.params.get("max_length") == sent


def test_a_model_from_a_preset_takes_rows_as_long_as_it_learned_from(
    logged_in: Run, priced: Fake, tmp_path: Path
) -> None:
    (tmp_path / "book.txt").write_text("Once upon a time there was a marketplace. " * 400)
    job = tmp_path / "two.yaml"
    job.write_text(
        "name: two\n"
        "stages:\n"
        "- {name: base, recipe: pretrain, data: book.txt, params: {preset: tiny-1m, max_length: 2100}}\n"
        "- {name: tune, recipe: sft, base_model: base.model, data: book.txt, params: {max_length: LENGTH}}\n"
        "trust: {class: public}\n"
        "budget: {max_sats: 5000}\n"
    )
    text = job.read_text()
    for length, exit_code in ((2100, 0), (2101, 3)):
        job.write_text(text.replace("LENGTH", str(length)))
        result = logged_in("job", "plan", job, "--json")
        assert result.exit_code == exit_code, result.stderr
    assert error_of(result)["evidence"]["key"] == "stages.1.params.max_length"


def test_data_check_fits_the_length_to_the_model(run: Run, tmp_path: Path) -> None:
    with_length(tmp_path, 32, "")
    rows, model = tmp_path / "data" / "train.jsonl", tmp_path / "models" / "tiny"
    assert json_of(run("data", "check", rows, "--base-model", model, "--json"))["max_length"] == 32
    refused = run("data", "check", rows, "--base-model", model, "--max-length", 33, "--json")
    assert refused.exit_code == 3 and error_of(refused)["code"] == "model.max_length"


def test_a_slip_that_spoils_every_row_is_shown_three_times(run: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b'{"text": "\xe4"}\n' * 300 + b'{"txet": "a"}\n')
    shown = run("data", "check", rows).stdout
    assert shown.count("is not UTF-8") == 3
    assert "… and 97 more like it" in shown and "… and 201 errors beyond these." in shown


CHECK_KEYS = {"format", "rows", "errors", "warnings", "verdict"}


def test_data_check_shows_what_is_learned(run: Run, tmp_path: Path) -> None:
    tiny_model.write_job(tmp_path)
    rows, model = tmp_path / "data" / "train.jsonl", tmp_path / "models" / "tiny"
    told = json_of(run("data", "check", rows, "--base-model", model, "--json"))
    assert set(told) >= CHECK_KEYS
    assert told["format"] == "prompt-completion" and told["errors"] == []
    page = run("data", "check", rows, "--base-model", model)
    assert page.exit_code == 0
    for text in ("prompt-completion", "40", "is learned", "What is 0?« It is 0.<eos>»", "verdict  ok"):
        assert text in page.stdout


def test_a_problem_without_a_file_shows_its_key_alone(run: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text("the same line\n" * 40)
    page = run("data", "check", rows, "--recipe", "pretrain", "--max-length", 8).stdout
    assert "\n  : " not in page


def test_on_a_terminal_what_is_learned_is_bright_and_the_prompt_dim(tmp_path: Path) -> None:
    pieces = [("What is 0?", False), (" It is 0.", True)]
    bright = row_text(pieces)
    assert [(bright.plain[span.start : span.end], str(span.style)) for span in bright.spans] == [
        ("What is 0?", "dim"),
        (" It is 0.", "bold green"),
    ]
    assert row_text([("x" * 5000, True)]).plain == "x" * 600 + " …"
    assert row_text([("\x1b[2J\n", False)]).plain == "?[2J\n"


def test_data_check_without_a_model_says_that_tokens_are_estimated(run: Run, tmp_path: Path) -> None:
    rows = tmp_path / "book.txt"
    rows.write_text("Once upon a time. " * 500)
    page = run("data", "check", rows, "--recipe", "pretrain")
    assert page.exit_code == 0, page.stdout
    assert "estimated" in page.stdout


def test_data_check_of_bad_rows_is_exit_3_with_places(run: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "fine"}\n{"txet": "typo"}\n')
    result = run("data", "check", rows, "--json")
    assert result.exit_code == 3
    (error,) = json_of(result)["errors"]
    assert (error["line"], set(error) >= {"file", "line", "key", "code", "fix"}) == (2, True)
    page = run("data", "check", rows)
    assert page.exit_code == 3
    assert "rows.jsonl:2" in unbroken(page.stdout) and "verdict  errors" in page.stdout


def test_data_check_of_an_unknown_recipe_or_file_is_exit_3(run: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "fine"}\n')
    assert run("data", "check", rows, "--recipe", "sfd").exit_code == 3
    assert run("data", "check", tmp_path / "none.jsonl").exit_code == 3


def auto_job(folder: Path, **params: object) -> Path:
    job = tiny_model.write_job(folder)
    values = yaml.safe_load(job.read_text())
    values["params"] = {**values["params"], "method": "auto", **params}
    job.write_text(yaml.safe_dump(values))
    return job


def test_a_method_left_to_us_is_explained_priced_and_frozen(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    plan = json_of(logged_in("job", "plan", auto_job(tmp_path, purpose="style"), "--json"))
    (stage,) = plan["stages"]
    assert stage["method"]["chosen"] == "lora"
    assert set(stage["method"]["factors"]) == {"use", "resources", "accessibility", "testing"}
    options = {each["method"]: each for each in stage["method"]["options"]}
    assert list(options) == ["lora", "partial", "full"]
    assert options["full"]["trained_params"] == tiny_model.num_params()
    assert options["full"]["trainable_share"] == 1.0
    assert options["lora"]["upload_bytes_per_shard"] == 3 * stage["trained_params"]
    assert {each["estimate_msat"] for each in options.values()} == {1_100_000}
    asked = [JobSpec.model_validate_json(request.spec_json).stages[0].params["method"] for request in priced.quoted]
    assert asked == ["lora", "partial", "full", "lora"]
    assert {each["key"] for each in stage["auto"]} >= {"learning_rate"}


def test_the_page_shows_factors_and_a_line_for_each_method(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    result = logged_in("job", "plan", auto_job(tmp_path, dora=True))
    assert result.exit_code == 0, result.stderr
    for text in ("chosen by four factors", "accessibility", "> lora", "full: dora is an adapter's.", "learning_rate"):
        assert text in result.stdout


CHECKPOINT = "continue_from: made/sft.checkpoint\n"


def test_the_page_says_from_where_a_stage_continues_and_what_goes_on(
    logged_in: Run, priced: Fake, tmp_path: Path
) -> None:
    tiny_model.write_checkpoint(tmp_path / "made" / "sft.checkpoint")
    file = tiny_model.write_job(tmp_path, extra=CHECKPOINT)
    result = logged_in("job", "plan", file)
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "continues made/sft.checkpoint: weights and Adam's moments after 30 steps" in said
    plan = json_of(logged_in("job", "plan", file, "--json"))
    assert plan["stages"][0]["continue_from"] == "made/sft.checkpoint"
    assert "continue.weights_only" not in {warning["code"] for warning in plan["warnings"]}
    valid = json_of(logged_in("job", "validate", file, "--json"))
    assert valid["stages"] == [{"name": "sft", "recipe": "sft", "continue_from": "made/sft.checkpoint"}]


def test_a_checkpoint_without_moments_is_a_warning(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    tiny_model.write_checkpoint(tmp_path / "made" / "sft.checkpoint", moments=False)
    plan = json_of(logged_in("job", "plan", tiny_model.write_job(tmp_path, extra=CHECKPOINT), "--json"))
    assert "continue.weights_only" in {warning["code"] for warning in plan["warnings"]}


def test_a_checkpoint_of_another_size_is_refused_at_its_line(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    tiny_model.write_checkpoint(tmp_path / "made" / "sft.checkpoint", params=7)
    result = logged_in("job", "plan", tiny_model.write_job(tmp_path, extra=CHECKPOINT), "--json")
    assert result.exit_code == 3 and not priced.quoted
    error = error_of(result)
    assert error["code"] == "continue.unlike" and "7 parameters" in error["sentence"]
    assert (error["evidence"]["line"], error["evidence"]["key"]) == ("10", "continue_from")


def test_the_plan_says_what_padding_wastes_and_packing_saves(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    job = tiny_model.write_job(tmp_path)
    padded = json_of(logged_in("job", "plan", job, "--json"))["stages"][0]["packing"]
    assert padded["layout"] == "padded" and padded["rows"] == 40 and padded["sequences"] < 40
    page = " ".join(logged_in("job", "plan", job).stdout.split())
    assert "packing: true would lay" in page and "times the rows for the same" in page
    job.write_text(job.read_text().replace("max_length: 64", "max_length: 64, packing: true"))
    packed = json_of(logged_in("job", "plan", job, "--json"))["stages"][0]["packing"]
    assert packed == {**padded, "layout": "packed"}
    page = " ".join(logged_in("job", "plan", job).stdout.split())
    assert f"40 rows in {packed['sequences']} sequences of 64" in page
    checked = logged_in(
        "data", "check", tmp_path / "data" / "train.jsonl", "--base-model", tmp_path / "models" / "tiny"
    )
    assert "is padding" in " ".join(checked.stdout.split())


def test_the_plan_says_how_many_rows_are_held_out(logged_in: Run, priced: Fake, tmp_path: Path) -> None:
    job = tiny_model.write_job(tmp_path)
    assert json_of(logged_in("job", "plan", job, "--json"))["stages"][0]["eval_rows"] == 40
    assert "held out 40 rows; no worker that learns gets them" in " ".join(logged_in("job", "plan", job).stdout.split())


def test_packing_for_a_family_that_mixes_rows_is_refused_with_the_place_of_the_key(
    logged_in: Run, priced: Fake, tmp_path: Path
) -> None:
    job = tiny_model.write_job(tmp_path)
    job.write_text(job.read_text().replace("max_length: 64", "max_length: 64, packing: true"))
    config = tmp_path / "models" / "tiny" / "config.json"
    changes = {"model_type": "opt", "architectures": ["OPTForCausalLM"]}
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    error = error_of(logged_in("job", "plan", job, "--json"))
    assert error["code"] == "packing.family"
    assert error["evidence"]["file"].endswith("job.yaml") and error["evidence"]["line"] == "6"
    assert not priced.quoted
