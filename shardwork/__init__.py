"""Shardwork from Python: `shardwork.Client`, its asynchronous twin, what they return, and what they raise.

    import shardwork

    with shardwork.Client(on_progress=shardwork.show_progress()) as client:
        plan = client.plan("job.yaml")
        job = client.submit(plan)
        job.wait()
        job.download("out")

Names are loaded at their first use, so that `import shardwork` costs nothing; neither torch nor numpy is ever loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.asynchronous import AsyncClient
    from .client.blocking import Client, Job, Wallet
    from .client.display.show import show_progress
    from .client.facts import CheckRequest, DataInvalid
    from .client.job import AsyncJob
    from .client.plan import JobSource, Measured, Plan
    from .client.progress import OnProgress, Progress
    from .client.results import (
        Balance,
        Change,
        ControlCost,
        Deposit,
        Download,
        Event,
        JobStatus,
        Login,
        LogLine,
        Output,
        PhasePrice,
        Quote,
        Report,
        Round,
        RunningShard,
        SamplesPage,
        ShardPayment,
        Stage,
        Transfer,
        Withdrawal,
        WorkerShare,
    )
    from .client.wallet import AsyncWallet
    from .dataset import DataReport
    from .errors import (
        Conflict,
        Corrupt,
        Internal,
        InvalidInput,
        JobFailed,
        LimitExceeded,
        NotAllowed,
        NotAuthenticated,
        NotEnoughFunds,
        NotFound,
        ShardworkError,
        Unreachable,
    )
    from .feedback.samples import SampleRow, SampleText
    from .jobs.file import JobFileInvalid
    from .jobs.spec import BudgetSection, DataSource, JobSpec, PlanSection, ScheduleSection, StageSpec, TrustSection
    from .problem import Problem
    from .serving.check import serve_check
    from .serving.results import EngineFit, Finding, Fit, Loaded, Merged, ServeCheck
    from .why import Why

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "AsyncWallet",
    "Balance",
    "BudgetSection",
    "Change",
    "CheckRequest",
    "Client",
    "Conflict",
    "ControlCost",
    "Corrupt",
    "DataInvalid",
    "DataReport",
    "DataSource",
    "Deposit",
    "Download",
    "EngineFit",
    "Event",
    "Finding",
    "Fit",
    "Internal",
    "InvalidInput",
    "Job",
    "JobFailed",
    "JobFileInvalid",
    "JobSource",
    "JobSpec",
    "JobStatus",
    "LimitExceeded",
    "Loaded",
    "LogLine",
    "Login",
    "Measured",
    "Merged",
    "NotAllowed",
    "NotAuthenticated",
    "NotEnoughFunds",
    "NotFound",
    "OnProgress",
    "Output",
    "PhasePrice",
    "Plan",
    "PlanSection",
    "Problem",
    "Progress",
    "Quote",
    "Report",
    "Round",
    "RunningShard",
    "SampleRow",
    "SampleText",
    "SamplesPage",
    "ScheduleSection",
    "ServeCheck",
    "ShardPayment",
    "ShardworkError",
    "Stage",
    "StageSpec",
    "Transfer",
    "TrustSection",
    "Unreachable",
    "Wallet",
    "Why",
    "Withdrawal",
    "WorkerShare",
    "serve_check",
    "show_progress",
]

#: module -> the public names that it holds
_HOMES = {
    "client.asynchronous": ("AsyncClient",),
    "client.blocking": ("Client", "Job", "Wallet"),
    "client.display.show": ("show_progress",),
    "client.facts": ("CheckRequest", "DataInvalid"),
    "client.job": ("AsyncJob",),
    "client.plan": ("JobSource", "Measured", "Plan"),
    "client.progress": ("OnProgress", "Progress"),
    "client.results": (
        *("Balance", "Change", "ControlCost", "Deposit", "Download", "Event", "JobStatus", "LogLine"),
        *("Login", "Output", "PhasePrice", "Quote", "Report", "Round", "RunningShard", "SamplesPage", "ShardPayment"),
        *("Stage", "Transfer", "Withdrawal", "WorkerShare"),
    ),
    "client.wallet": ("AsyncWallet",),
    "dataset": ("DataReport",),
    "errors": (
        *("Conflict", "Corrupt", "Internal", "InvalidInput", "JobFailed", "LimitExceeded", "NotAllowed"),
        *("NotAuthenticated", "NotEnoughFunds", "NotFound", "ShardworkError", "Unreachable"),
    ),
    "feedback.samples": ("SampleRow", "SampleText"),
    "jobs.file": ("JobFileInvalid",),
    "jobs.spec": (
        "BudgetSection",
        "DataSource",
        "JobSpec",
        "PlanSection",
        "ScheduleSection",
        "StageSpec",
        "TrustSection",
    ),
    "problem": ("Problem",),
    "serving.check": ("serve_check",),
    "serving.results": ("EngineFit", "Finding", "Fit", "Loaded", "Merged", "ServeCheck"),
    "why": ("Why",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("shardwork")
    if name not in _MODULES:
        raise AttributeError(f"module 'shardwork' has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *globals(), "__version__"})
