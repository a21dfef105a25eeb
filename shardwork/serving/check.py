"""serve_check: a downloaded folder is loaded, asked and judged, and an adapter merged into its base if wished.

Owns starting the process that loads (`shardwork.serving.probe`), telling its failures apart, and putting a merged
folder in place whole or not at all. Never imports torch. Called by `shardwork job serve-check`, and from Python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import Conflict, Corrupt, InvalidInput, ShardworkError
from .engines import judge
from .folder import Subject, read_subject
from .results import Loaded, Merged, ServeCheck

NEEDED = ("torch", "transformers", "safetensors")
PROGRAM = ("-I", "-m", "shardwork.serving.probe")
#: of the base, beside its weights; save_pretrained writes the rest
COPIED = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "generation_config.json"),
)
_NEXT_STEPS = {
    "load": "Download the output again; if it fails again, report the text above.",
    "tokenizer": "See that the tokenizer's files are those of the model, and save them again with save_pretrained.",
    "generate": "Look at the job's losses (shardwork job report ID): a model that diverged answers with no numbers.",
    "merge": "Serve the adapter on its base instead, or free some space and try again.",
}


def serve_check(folder: str | Path, *, base: str | Path | None = None, merge: str | Path | None = None) -> ServeCheck:
    """Loads a model or adapter folder with plain transformers, asks it for a few tokens, and judges where it may be
    served. `base` names an adapter's base; `merge` a folder to write the adapter and its base to, as one model.

    Needs the extra `shardwork[worker]`. Raises InvalidInput "serve.*" or "model.*" for what is wrong in a folder,
    Conflict "serve.needs_extra", "serve.does_not_load" or "serve.killed", and Corrupt "serve.merge_differs".
    """
    subject = read_subject(Path(folder), Path(base) if base is not None else None)
    target = Path(merge) if merge is not None else None
    if target is not None:
        _check_target(subject, target)
    _check_installed(subject)
    engines = judge(subject)
    if target is None:
        answer, merged = _ask(subject, None), None
    else:
        answer, merged = _merge(subject, target)
    return ServeCheck(
        folder=subject.folder,
        kind=subject.kind,
        base=subject.base,
        model_type=subject.model.model_type,
        architecture=subject.model.architecture,
        loaded=Loaded(**{key: value for key, value in answer.items() if key != "merged"}),
        engines=engines,
        merged=merged,
    )


def _check_installed(subject: Subject) -> None:
    lacking = [name for name in (*NEEDED, *(("peft",) if subject.adapter else ())) if find_spec(name) is None]
    if lacking:
        sentence = f"Loading a model needs {', '.join(lacking)}, which is not installed here."
        fix = "Install the extra that holds it:  pip install 'shardwork[worker]'"
        raise Conflict("serve.needs_extra", sentence, next_step=fix, extra="worker")


# ---- the process that loads ---------------------------------------------------------------------------------------


def _ask(subject: Subject, merge: Path | None) -> dict[str, Any]:
    """One request, one answer. Raises for what the child found wrong, and for a child without an answer."""
    template = subject.folder / "chat_template.jinja"
    request = {
        "folder": str(subject.folder.resolve()),
        "base": str(subject.base.resolve()) if subject.base else None,
        "template": str(template.resolve()) if subject.adapter and template.is_file() else None,
        "merge": str(merge.resolve()) if merge else None,
    }
    code, out, said = _exchange(json.dumps(request))
    if code or not out:
        raise _ended(subject, code, said)
    answer: dict[str, Any] = json.loads(out)
    wrong = _failure(subject, answer)
    if wrong is not None:
        raise wrong
    return answer


def _exchange(request: str) -> tuple[int, str, str]:
    """Exit code, answer, and what was said on stderr. The child is gone when this returns, also by Ctrl-C."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    child = subprocess.Popen(
        [sys.executable, *PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **offline},
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C is ours to hear; the child is ended below
    )
    try:
        out, said = child.communicate(request)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    return child.returncode, out, said


def _ended(subject: Subject, code: int, said: str) -> ShardworkError:
    """A process without an answer: killed, or an installation that is broken."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if code < 0:
        need = sum(each.stat().st_size for each in subject.model.folder.glob("*.safetensors"))
        sentence = f"The process that loaded the model was ended by signal {-code}."
        fix = f"The weights alone take {need / 1e9:.1f} GB of memory: free some, or check it on a larger machine."
        return Conflict("serve.killed", sentence, next_step=fix, folder=subject.folder)
    sentence = "The libraries that load models are broken here."
    fix = "Install them again:  pip install --force-reinstall 'shardwork[worker]'"
    return Conflict("serve.broken_extra", sentence, next_step=fix, said=lines[-1][:300] if lines else f"exit {code}")


def _failure(subject: Subject, answer: Mapping[str, Any]) -> ShardworkError | None:
    """What the child found wrong, or None."""
    part = subject.folder if subject.adapter and answer.get("file") else subject.model.folder
    file = part / str(answer["file"]) if answer.get("file") else part
    if "missing" in answer:
        sentence = "Weights are missing: the model has a tensor that no file holds."
        fix = "Download the output again; what is missing would be drawn at random."
        return InvalidInput("serve.missing_weights", sentence, next_step=fix, file=file, key=answer["missing"])
    if "unexpected" in answer:
        sentence = "The adapter holds weights for a layer that the base does not have."
        fix = "Name the model that it was tuned on: --base DIR."
        return InvalidInput("serve.base_differs", sentence, next_step=fix, file=file, key=answer["unexpected"])
    if "failed" in answer:
        said = f"{answer['kind']}: {answer['message']}"
        does = {"tokenizer": "The tokenizer does not load", "generate": "The model does not answer"}
        sentence = f"{does.get(answer['failed'], 'The folder does not load')}."
        if answer["failed"] == "merge":
            sentence = "The adapter cannot be merged into its base."
        step = _NEXT_STEPS[answer["failed"]]
        return Conflict("serve.does_not_load", sentence, next_step=step, said=said, folder=subject.folder)
    return None


# ---- merging ------------------------------------------------------------------------------------------------------


def _check_target(subject: Subject, target: Path) -> None:
    if subject.adapter is None:
        sentence = "--merge is for adapters, and this folder holds a whole model."
        raise InvalidInput("serve.nothing_to_merge", sentence, next_step="Leave --merge out.", file=subject.folder)
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        sentence = "The folder to merge into is there already, and nothing is ever overwritten."
        fix = "Name a folder that is not there yet, or an empty one."
        raise InvalidInput("serve.out_exists", sentence, next_step=fix, file=target)


def _merge(subject: Subject, target: Path) -> tuple[dict[str, Any], Merged]:
    """Writes beside the target and renames: it appears whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.part-", dir=target.parent))
    try:
        answer = _ask(subject, staging)
        found = answer["merged"]
        if not found["difference"] <= found["tolerance"]:
            sentence = "The merged model does not give the logits of base and adapter."
            fix = "Serve the adapter on its base instead."
            evidence = {name: f"{found[name]:.3g}" for name in ("difference", "tolerance")}
            raise Corrupt("serve.merge_differs", sentence, next_step=fix, **evidence)
        _copy_companions((subject.model.folder, subject.folder), staging)
        read_subject(staging)  # refuses what is not whole
        size = sum(each.stat().st_size for each in staging.iterdir())
        staging.chmod(0o755)
        os.rename(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    engines = judge(read_subject(target))
    return answer, Merged(folder=target, bytes=size, engines=engines, **found)


def _copy_companions(folders: Sequence[Path], into: Path) -> None:
    """The base's tokenizer and settings, and the adapter's chat template over the base's."""
    for folder, names in zip(folders, (COPIED, ("chat_template.jinja",)), strict=True):
        for name in names:
            if (folder / name).is_file():
                (into / name).write_bytes((folder / name).read_bytes())
