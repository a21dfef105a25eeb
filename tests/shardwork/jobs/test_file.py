"""The job file: what a person gets told when it is wrong, and what it means when it is right."""

# ruff: noqa: E501  the table of broken files reads best with one case a line

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from shardwork.errors import InvalidInput
from shardwork.jobs.file import JobFileInvalid, LoadedJob, load
from shardwork.problem import Problem

GOOD = """\
name: tutor
base_model: ./models/tiny
data: ./data/train.jsonl
eval_fraction: 0.05
recipe: sft
params: {method: lora, rank: 8, learning_rate: auto, max_length: 256}
plan: {rounds: 4, shards_per_round: 4, inner_steps: 25}
trust: {class: public, aggregate: screened_mean, audit: auto}
budget: {max_sats: 2000}
"""

STAGED = """\
name: tutor
stages:
  - name: first
    recipe: pretrain
    data: data/train.jsonl
    params: {preset: tiny-1m}
  - name: second
    recipe: sft
    base_model: first.model
    data: [data/*.jsonl]
trust: {class: public}
budget: {max_sats: 2000}
"""

# (what to replace in the good file, by what, expected code, line, key)
BROKEN: dict[str, tuple[str, str, str, str, int | None, str]] = {
    "a key twice": (GOOD, "recipe: sft", "recipe: sft\nrecipe: sft", "jobfile.duplicate_key", 6, "recipe"),
    "a nested key twice": (GOOD, "rank: 8", "rank: 8, rank: 9", "jobfile.duplicate_key", 6, "params.rank"),
    "an open bracket": (GOOD, "learning_rate: auto, max_length: 256}", "x: 1", "jobfile.syntax", 6, ""),
    "a tab": (GOOD, "recipe: sft", "recipe:\n\t- sft", "jobfile.syntax", 6, ""),
    "an object tag": (GOOD, "name: tutor", "name: !!python/object/apply:os.system [ls]", "jobfile.syntax", 1, "name"),
    "a control character": (GOOD, "recipe: sft", "recipe: \0sft", "jobfile.syntax", 5, ""),
    "a control character in the name": (GOOD, "name: tutor", 'name: "t\\e[31m"', "jobfile.wrong_value", 1, "name"),
    "an old octal number": (GOOD, "rounds: 4", "rounds: 010", "jobfile.wrong_type", 7, "plan.rounds"),
    "minutes and seconds": (GOOD, "rounds: 4", "rounds: 1:30", "jobfile.wrong_type", 7, "plan.rounds"),
    "a merge key": (GOOD, "plan: {", "plan: {<<: {rounds: 2}, ", "jobfile.syntax", 7, "plan"),
    "a list": (GOOD, GOOD, "- a\n- b\n", "jobfile.not_a_mapping", None, ""),
    "nothing": (GOOD, GOOD, "", "jobfile.not_a_mapping", None, ""),
    "a mistyped key": (GOOD, "recipe: sft", "recipee: sft", "jobfile.unknown_key", 5, "recipee"),
    "a mistyped nested key": (GOOD, "rounds: 4", "round: 4", "jobfile.unknown_key", 7, "plan.round"),
    "a mistyped parameter": (GOOD, "rank: 8", "ranks: 8", "jobfile.unknown_key", 6, "params.ranks"),
    "a stage key outside": (STAGED, "trust:", "data: x.jsonl\ntrust:", "jobfile.unknown_key", 11, "data"),
    "a mistyped key in a stage": (STAGED, "    recipe: sft", "    recipi: sft", "jobfile.unknown_key", 8, "stages.1.recipi"),
    "no name": (GOOD, "name: tutor\n", "", "jobfile.missing_key", None, "name"),
    "no recipe": (GOOD, "recipe: sft\n", "", "jobfile.missing_key", None, "recipe"),
    "no data": (GOOD, "data: ./data/train.jsonl\n", "", "jobfile.missing_key", None, "data"),
    "no budget": (GOOD, "budget: {max_sats: 2000}\n", "", "jobfile.missing_key", None, "budget.max_sats"),
    "an empty budget": (GOOD, "{max_sats: 2000}", "{}", "jobfile.missing_key", 9, "budget.max_sats"),
    "no name in a stage": (STAGED, "name: second\n    ", "", "jobfile.missing_key", 7, "stages.1.name"),
    "no trust": (GOOD, "trust: {class: public, aggregate: screened_mean, audit: auto}\n", "", "jobfile.trust_class_missing", None, "trust.class"),
    "no trust class": (GOOD, "class: public, ", "", "jobfile.trust_class_missing", 8, "trust.class"),
    "an unknown class": (GOOD, "class: public", "class: secret", "jobfile.wrong_value", 8, "trust.class"),
    "a rule not built": (GOOD, "screened_mean", "krum", "jobfile.wrong_value", 8, "trust.aggregate"),
    "a word for a number": (GOOD, "rounds: 4", "rounds: four", "jobfile.wrong_type", 7, "plan.rounds"),
    "a truth value for a number": (GOOD, "rounds: 4", "rounds: yes", "jobfile.wrong_type", 7, "plan.rounds"),
    "a text number": (GOOD, "rounds: 4", "rounds: '4'", "jobfile.wrong_type", 7, "plan.rounds"),
    "a fraction of rounds": (GOOD, "rounds: 4", "rounds: 4.5", "jobfile.wrong_type", 7, "plan.rounds"),
    "no rounds": (GOOD, "rounds: 4", "rounds: 0", "jobfile.wrong_value", 7, "plan.rounds"),
    "a negative budget": (GOOD, "2000", "-5", "jobfile.wrong_value", 9, "budget.max_sats"),
    "not a number": (GOOD, "learning_rate: auto", "learning_rate: .nan", "jobfile.wrong_value", 6, "params.learning_rate"),
    "a wrong method": (GOOD, "method: lora", "method: qlora", "jobfile.wrong_value", 6, "params.method"),
    "neither number nor auto": (GOOD, "learning_rate: auto", "learning_rate: fast", "jobfile.wrong_type", 6, "params.learning_rate"),
    "params is a list": (GOOD, "{method: lora, rank: 8, learning_rate: auto, max_length: 256}", "[1]", "jobfile.wrong_type", 6, "params"),
    "plan is a word": (GOOD, "{rounds: 4, shards_per_round: 4, inner_steps: 25}", "big", "jobfile.wrong_type", 7, "plan"),
    "data is a number": (GOOD, "data: ./data/train.jsonl", "data: 3", "jobfile.wrong_type", 3, "data"),
    "an unknown recipe": (GOOD, "recipe: sft", "recipe: sftt", "jobfile.unknown_recipe", 5, "recipe"),
    "both ways to hold out": (GOOD, "eval_fraction", "eval_data: data/train.jsonl\neval_fraction", "jobfile.wrong_value", 5, "eval_fraction"),
    "too much held out": (GOOD, "0.05", "0.9", "jobfile.wrong_value", 4, "eval_fraction"),
    "a missing file": (GOOD, "train.jsonl", "tran.jsonl", "jobfile.missing_file", 3, "data"),
    "a glob that finds nothing": (GOOD, "train.jsonl", "*.none", "jobfile.missing_file", 3, "data"),
    "a missing model": (GOOD, "models/tiny", "models/tinny", "jobfile.missing_file", 2, "base_model"),
    "a kind of file not built": (GOOD, "data/train.jsonl", "data/rows.xlsx", "jobfile.file_type", 3, "data"),
    "a hub model without a revision": (GOOD, "./models/tiny", "hub:a/b", "hub.bad_reference", 2, "base_model"),
    "a missing checkpoint": (GOOD, "recipe: sft", "recipe: sft\ncontinue_from: made/sft.checkpoint", "jobfile.missing_file", 6, "continue_from"),
    "continuing from a model": (STAGED, "base_model: first.model", "continue_from: first.model", "jobfile.wrong_value", 9, "stages.1.continue_from"),
    "continuing from a later stage": (STAGED, "base_model: first.model", "continue_from: third.checkpoint", "jobfile.unknown_stage", 9, "stages.1.continue_from"),
    "continuing from a number": (GOOD, "recipe: sft", "recipe: sft\ncontinue_from: 3", "jobfile.wrong_type", 6, "continue_from"),
    "a stage that comes later": (STAGED, "base_model: first.model", "base_model: third.model", "jobfile.unknown_stage", 9, "stages.1.base_model"),
    "two stages of one name": (STAGED, "name: second", "name: first", "jobfile.duplicate_stage", 7, "stages.1.name"),
    "a stage name with a space": (STAGED, "name: second", "name: my stage", "jobfile.wrong_value", 7, "stages.1.name"),
    "stages is a mapping": (STAGED, STAGED[STAGED.index("stages"):STAGED.index("trust")], "stages: {a: 1}\n", "jobfile.wrong_type", 2, "stages"),
    "an alias bomb": (GOOD, "name: tutor", "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]", "jobfile.too_large", None, "*"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    for name in ("train.jsonl", "b.jsonl", "a.jsonl"):
        (tmp_path / "data" / name).write_text('{"text": "x"}\n')
    (tmp_path / "data" / "rows.xlsx").write_text("a,b\n")
    return tmp_path


def load_text(folder: Path, text: str, name: str = "job.yaml") -> LoadedJob:
    path = folder / name
    path.write_text(text)
    return load(path)


def problems(folder: Path, text: str, name: str = "job.yaml") -> list[Problem]:
    with pytest.raises(JobFileInvalid) as caught:
        load_text(folder, text, name)
    assert caught.value.code == "jobfile.invalid" and caught.value.exit_code == 3
    return caught.value.problems


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_job_file_is_named_by_line_key_and_code(name: str, folder: Path) -> None:
    text, old, new, code, line, key = BROKEN[name]
    assert old in text
    found = problems(folder, text.replace(old, new, 1))
    match = [problem for problem in found if problem.code == code and key in (problem.key, "*")]
    assert match, [problem.render() for problem in found]
    assert key == "*" or match[0].line == line
    assert all(problem.sentence for problem in found)
    assert match[0].file.endswith("job.yaml")


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("recipe: sft", "recipee: sft", "'recipe'"),
        ("rank: 8", "rnak: 8", "'rank'"),
        ("recipe: sft", "recipe: pretain", "'pretrain'"),
        ("method: lora", "method: lra", "'lora'"),
        ("train.jsonl", "trainn.jsonl", "train.jsonl'"),
        ("aggregate", "agregate", "'aggregate'"),
        ("max_sats", "max_sat", "'max_sats'"),
    ],
)
def test_the_nearest_valid_word_is_offered(old: str, new: str, hint: str, folder: Path) -> None:
    assert any(hint in problem.fix for problem in problems(folder, GOOD.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new", "sentence", "fix"),
    [
        ("name: tutor", "name: 42", "'name' must be text, but is 42.", 'Write `name: "42"`.'),
        ("rounds: 4", "rounds: '4'", "'rounds' must be a whole number, but is \"4\".", "Write `rounds: 4`."),
        ("max_sats: 2000", "max_sats: 2e3", "'max_sats' must be a whole number, but is 2000.0.", "Write `max_sats: 2000`."),
        ("rank: 8", "train_on_prompt: on", "'train_on_prompt' must be true or false, but is \"on\".", "Write `train_on_prompt: true`."),
        ("rank: 8", "rank: 0", "'rank' must be at least 1, but is 0.", "Write `rank: 1` or more."),
        ("rate: auto", "rate: fast", "'learning_rate' must be a number or 'auto', but is \"fast\".", "peak learning rate"),
        ("{class: public, aggregate: screened_mean, audit: auto}", "public", "'trust' must be a mapping of keys to values", "class, aggregate, audit"),
        ("eval_fraction", "eval_data: data/a.jsonl\neval_fraction", "Give eval_data or eval_fraction, not both.", "Remove one"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_in_plain_words_with_the_right_one(
    old: str, new: str, sentence: str, fix: str, folder: Path
) -> None:
    (found,) = problems(folder, GOOD.replace(old, new, 1))
    assert sentence in found.sentence and fix in found.fix


def test_older_yaml_s_truth_values_are_plain_words(folder: Path) -> None:
    assert load_text(folder, GOOD.replace("name: tutor", "name: on")).spec.name == "on"
    assert load_text(folder, GOOD.replace("name: tutor", "name: 0123")).spec.name == "0123"
    assert load_text(folder, GOOD.replace("max_sats: 2000", "max_sats: 2_000")).spec.budget.max_sats == 2000


def test_a_mark_before_the_text_is_no_part_of_it(folder: Path) -> None:
    for name, text in (("job.yaml", GOOD), ("job.json", json.dumps({"name": "a"}))):
        path = folder / name
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        if name == "job.yaml":
            assert load(path).spec.name == "tutor"
            continue
        with pytest.raises(JobFileInvalid) as caught:
            load(path)
        assert {found.code for found in caught.value.problems} == {"jobfile.missing_key", "jobfile.trust_class_missing"}


def test_a_mistyped_key_is_not_told_again_as_a_missing_one(folder: Path) -> None:
    text = GOOD.replace("name:", "nmae:").replace("recipe:", "recipie:").replace("class:", "clas:")
    assert {found.key for found in problems(folder, text)} == {"nmae", "recipie", "trust.clas"}


def test_a_bomb_of_aliases_is_one_problem(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (found,) = problems(folder, "\n".join(lines) + "\n" + GOOD)
    assert found.code == "jobfile.too_large"


def test_a_device_is_read_no_further_than_a_job_file_is_long() -> None:
    with pytest.raises(JobFileInvalid, match="1 MiB"):
        load(Path("/dev/zero"))


def test_an_error_found_later_can_still_name_its_line(folder: Path) -> None:
    flat, staged = load_text(folder, GOOD), load_text(folder, STAGED, "staged.yaml")
    assert flat.place("sft", "params.rank") == {"file": flat.file, "line": "6", "key": "params.rank"}
    assert staged.place("second", "params.rank") == {"file": staged.file, "line": "7", "key": "stages.1.params.rank"}


def test_all_problems_come_at_once(folder: Path) -> None:
    text = GOOD.replace("rank: 8", "ranks: 8").replace("rounds: 4", "rounds: four").replace("class: public, ", "")
    text = text.replace("train.jsonl", "none.jsonl").replace("name: tutor", "title: tutor")
    keys = {problem.key for problem in problems(folder, text)}
    assert keys == {"title", "name", "data", "params.ranks", "plan.rounds", "trust.class"}


def test_a_flat_file_is_one_stage_named_after_its_recipe(folder: Path) -> None:
    loaded = load_text(folder, GOOD)
    (stage,) = loaded.spec.stages
    assert (stage.name, stage.recipe, stage.base_model) == ("sft", "sft", "./models/tiny")
    assert loaded.files["sft"].data == (folder / "data" / "train.jsonl",)
    assert loaded.files["sft"].base_model == folder / "models" / "tiny"
    assert loaded.folder == folder and loaded.warnings == ()


def test_globs_are_sorted_and_files_of_other_stages_left_alone(folder: Path) -> None:
    loaded = load_text(folder, STAGED)
    names = [path.name for path in loaded.files["second"].data]
    assert names == ["a.jsonl", "b.jsonl", "train.jsonl"]
    assert loaded.files["second"].base_model is None


def test_a_folder_stands_for_its_files_and_repeats_are_a_warning(folder: Path) -> None:
    loaded = load_text(folder, GOOD.replace("./data/train.jsonl", "[data, data/a.jsonl]"))
    assert len(loaded.files["sft"].data) == 3
    assert [warning.code for warning in loaded.warnings] == ["jobfile.file_twice"]


def test_numbers_with_exponents_are_numbers_and_dates_are_text(folder: Path) -> None:
    text = GOOD.replace("learning_rate: auto", "learning_rate: 1e-3").replace("name: tutor", "name: 2026-01-01")
    spec = load_text(folder, text).spec
    assert spec.stages[0].params["learning_rate"] == 1e-3
    assert spec.name == "2026-01-01"


def test_json_and_toml_mean_the_same_as_yaml(folder: Path) -> None:
    expected = load_text(folder, STAGED).spec
    as_json = json.dumps(json.loads(expected.canonical_json()), indent=2)
    assert load_text(folder, as_json, "job.json").spec == expected
    toml = """
name = "tutor"
trust.class = "public"
[budget]
max_sats = 2000
[[stages]]
name = "first"
recipe = "pretrain"
data = "data/train.jsonl"
params = {preset = "tiny-1m"}
[[stages]]
name = "second"
recipe = "sft"
base_model = "first.model"
data = ["data/*.jsonl"]
"""
    assert load_text(folder, toml, "job.toml").spec == expected


def test_json_problems_have_lines(folder: Path) -> None:
    text = '{\n "name": "a",\n\t"recipe": "sft",\n "data": "data/a.jsonl",\n "parms": {}\n}'
    found = {problem.key: problem for problem in problems(folder, text, "job.json")}
    assert (found["parms"].line, found["parms"].code) == (5, "jobfile.unknown_key")
    assert problems(folder, '{"name": "a",\n "name": "b"}', "job.json")[0].code == "jobfile.duplicate_key"
    assert [(problem.code, problem.line) for problem in problems(folder, '{"name":\n oops}', "job.json")] == [
        ("jobfile.syntax", 2)
    ]
    assert problems(folder, '{"name": NaN}', "job.json")[0].code == "jobfile.syntax"


def test_toml_problems_have_lines(folder: Path) -> None:
    text = 'name = "a"\nrecipe = "sft"\ndata = "data/a.jsonl"\n[plan]\nround = 3\n[trust]\nclass = "public"\n'
    found = {problem.key: problem for problem in problems(folder, text, "job.toml")}
    assert (found["plan.round"].line, found["budget.max_sats"].line) == (5, None)
    assert [(problem.code, problem.line) for problem in problems(folder, "name = \n", "job.toml")] == [
        ("jobfile.syntax", 1)
    ]
    assert problems(folder, 'name = "a"\nname = "b"\n', "job.toml")[0].code == "jobfile.duplicate_key"


def test_a_missing_or_unreadable_job_file_is_named(folder: Path) -> None:
    with pytest.raises(JobFileInvalid) as caught:
        load(folder / "jbo.yaml")
    assert caught.value.problems[0].code == "jobfile.missing_file"


@pytest.mark.parametrize("kind", ["pipe", "loop", "broken link"])
def test_data_that_is_no_file_is_called_that(folder: Path, kind: str) -> None:
    path = folder / "data" / "odd.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("odd.jsonl" if kind == "loop" else "gone.jsonl")
    (found,) = [one for one in problems(folder, GOOD.replace("train", "odd")) if one.key == "data"]
    assert "neither a file nor a folder" in found.sentence and "Did you mean" not in found.fix
    (folder / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(JobFileInvalid, match="UTF-8"):
        load(folder / "latin.yaml")
    (folder / "large.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(JobFileInvalid, match="1 MiB"):
        load(folder / "large.yaml")


def test_another_registry_may_be_passed(folder: Path) -> None:
    def none(kind: str) -> type:
        raise InvalidInput("recipe.unknown", f"No {kind}.", next_step="Known: none.")

    path = folder / "job.yaml"
    path.write_text(GOOD)
    with pytest.raises(JobFileInvalid) as caught:
        load(path, none)
    assert [problem.code for problem in caught.value.problems] == ["jobfile.unknown_recipe"]


@pytest.mark.parametrize(
    ("line", "key", "told"),
    [
        ("data: {path: rows.jsonl, maping: {prompt: q}}", "data.maping", "Did you mean 'mapping'?"),
        ("data: [{path: rows.jsonl, weight: -1}]", "data.0.weight", "how often a pass over the data reads each row"),
        ("data: [{path: rows.jsonl, weight: .inf}]", "data.0.weight", "Write a plain number."),
        ("data: ~/rows.jsonl", "data", "'~' means nothing in a job file."),
        ("data: https://example.org/rows.jsonl", "data", "Download it first"),
        ("{data: rows.jsonl, eval_fraction: 5%}", "eval_fraction", "share of rows held out"),
    ],
)
def test_advice_fits_the_mistake(line: str, key: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' * 9)
    file = tmp_path / "job.yaml"
    body = line.strip("{}").replace(", eval", "\neval") if line.startswith("{") else line
    file.write_text(f"name: a\nrecipe: count\n{body}\ntrust: {{class: public}}\nbudget: {{max_sats: 9}}\n")
    with pytest.raises(JobFileInvalid) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert problem.key == key and told in problem.fix


def test_a_link_that_leads_to_itself_is_not_offered_as_its_own_remedy(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").symlink_to("job.yaml")
    with pytest.raises(JobFileInvalid) as caught:
        load(tmp_path / "job.yaml")
    assert "Did you mean" not in caught.value.problems[0].fix
