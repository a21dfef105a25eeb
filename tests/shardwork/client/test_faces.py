"""The two faces: same names and signatures, everything public resolves, and `import shardwork` costs nothing."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

import shardwork
from shardwork.client.asynchronous import AsyncClient
from shardwork.client.blocking import Client, Job, Wallet
from shardwork.client.job import AsyncJob
from shardwork.client.wallet import AsyncWallet

#: how a return type of the asynchronous face reads in the blocking one
TRANSLATED = (("AsyncGenerator[", "Iterator["), (", None]", "]"), ("Async", ""))
#: of the asynchronous face alone: the escape hatch to calls without a method, and what it is made of
ASYNC_ONLY = {"session", "access"}


def public(cls: type) -> dict[str, Any]:
    return {name: member for name, member in vars(cls).items() if not name.startswith("_")}


def blocking_form(annotation: str) -> str:
    for ours, theirs in TRANSLATED:
        annotation = annotation.replace(ours, theirs)
    return annotation


@pytest.mark.parametrize(("ours", "theirs"), [(AsyncClient, Client), (AsyncJob, Job), (AsyncWallet, Wallet)])
def test_every_method_of_one_face_is_in_the_other_with_the_same_signature(ours: type, theirs: type) -> None:
    asynchronous, blocking = public(ours), public(theirs)
    # set in __init__ there, a property here
    assert set(asynchronous) - ASYNC_ONLY == set(blocking) - {"last", "tracked_in"}
    for name, member in asynchronous.items():
        if name in ASYNC_ONLY or isinstance(member, property):
            continue
        here, there = inspect.signature(member), inspect.signature(blocking[name])
        assert here.parameters == there.parameters, name
        assert blocking_form(str(here.return_annotation)) == str(there.return_annotation), name


@pytest.mark.parametrize("cls", [AsyncClient, Client, AsyncJob, Job, AsyncWallet, Wallet])
def test_every_public_method_says_what_it_does(cls: type) -> None:
    silent = [name for name, member in public(cls).items() if not inspect.getdoc(member) and name != "id"]
    assert silent == []


def test_both_constructors_take_the_same() -> None:
    assert str(inspect.signature(AsyncClient)) == str(inspect.signature(Client))


@pytest.mark.parametrize("name", shardwork.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(shardwork, name) is not None
    assert name in dir(shardwork)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Clinet"):
        shardwork.Clinet  # noqa: B018  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]


def test_the_package_says_that_it_is_typed() -> None:
    assert (shardwork.__file__ or "").endswith("__init__.py")
    from importlib.resources import files

    assert files("shardwork").joinpath("py.typed").is_file()


def loaded_by(code: str) -> set[str]:
    command = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_shardwork_loads_nothing_and_using_it_neither_torch_nor_numpy() -> None:
    bare = {name for name in loaded_by("import shardwork") if name.startswith("shardwork")}
    assert bare == {"shardwork"}
    used = loaded_by("import shardwork\nshardwork.Client(); shardwork.show_progress(); shardwork.JobSpec")
    assert used & {"torch", "numpy", "transformers", "rich", "IPython", "typer"} == set()
