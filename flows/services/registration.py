"""What Prefect's server is told by `p2o up`: the work pool, the deployments of prefect.yaml, the automations.

What is there already is left as it is, since a person may have changed it in the page: a pool's limit, a schedule
switched on, an automation switched off. Deployments are registered anew when prefect.yaml, the flows or the recipes
change.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect.automations import AutomationCore, EventTrigger, Posture, SendNotification
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectNotFound
from prefect.states import StateType
from prefect.workers.process import ProcessWorker

from flows.lifecycle.events import LOST_SKILLS, NO_SIGNAL, STOPPED
from flows.lifecycle.lost import end_lost_runs
from flows.services.commands import POOL
from flows.services.records import folder

PREFECT_FILE = "prefect.yaml"
SIDE_BY_SIDE = 1
"""Runs that the pool lets work at once: they would share the machine's cores and its GPU."""
SILENCE = timedelta(seconds=100)
"""Of a run's heartbeats, three of which are missing then (PREFECT_FLOWS_HEARTBEAT_FREQUENCY, 30 s)."""
SLOW_START = timedelta(minutes=10)
"""Between a worker's taking a run and its beginning."""
NOTIFIER = "p2o"
"""Name of the notification block, of any kind, that findings are sent to."""
SILENT = {
    f"prefect.flow-run.{name}"
    for name in ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", "Paused", "Suspended", "Scheduled")
}
"""After these nobody expects a heartbeat."""


def register(home: Path, server: str) -> list[str]:
    """Tell the server at this address. Returns what there is to say about it. Raises CalledProcessError where
    `prefect deploy` fails."""
    with SyncPrefectClient(f"{server}/api") as client:
        said = [_make_pool(client), _deploy(client, home, f"{server}/api"), automate(client)]
        lost = end_lost_runs(client, since_before=True)
    return [*said, *[f"{name}: its process is gone, Crashed now" for name in lost]]


def _make_pool(client: SyncPrefectClient) -> str:
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        made = WorkPoolCreate(
            name=POOL,
            type="process",
            base_job_template=template,
            concurrency_limit=SIDE_BY_SIDE,
            description="Runs in processes of this machine; `p2o up` starts the worker.",
        )
        pool = client.create_work_pool(made)
    limit = pool.concurrency_limit
    return f"Work pool {POOL}: {'any number of runs' if limit is None else f'{limit} at a time'}, others wait"


def _deploy(client: SyncPrefectClient, home: Path, api: str) -> str:
    """`prefect deploy --all`, unless nothing it reads has changed since the last time."""
    wanted = {entry["name"] for entry in yaml.safe_load((home / PREFECT_FILE).read_text())["deployments"]}
    mark, digest = folder() / "deployed", _sources_digest(home)
    there = {deployment.name for deployment in client.read_deployments()}
    known = mark.read_text() if mark.exists() else ""
    if known != digest or not wanted <= there:
        subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", PREFECT_FILE],
            cwd=home,
            env=os.environ | {"PREFECT_API_URL": api, "PWD": str(home)},
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        mark.write_text(digest)
    return f"Deployments ({PREFECT_FILE}): {', '.join(sorted(wanted))}"


def _sources_digest(home: Path) -> str:
    """Of what the deployments and their forms are made from."""
    flows = Path(__file__).parents[1]
    files = [home / PREFECT_FILE, *sorted(flows.glob("*.py")), *sorted((home / "recipes").glob("*.yaml"))]
    content = hashlib.sha256(str(home).encode())
    for file in files:
        content.update(file.name.encode() + file.read_bytes())
    return content.hexdigest()


def automations(client: SyncPrefectClient, silence: timedelta = SILENCE) -> Iterator[AutomationCore]:
    """Those of every clone, and one that notifies where there is a block to send by."""
    heartbeat = "prefect.flow-run.heartbeat"
    run: dict[str, Any] = {"match": {"prefect.resource.id": "prefect.flow-run.*"}, "posture": Posture.Proactive}
    run |= {"for_each": {"prefect.resource.id"}, "threshold": 1}
    yield AutomationCore(
        name="p2o: a run that is silent has crashed",
        description="Its process was killed together with whoever watched it, or the machine went down.",
        trigger=EventTrigger(after={heartbeat}, expect={heartbeat, *SILENT}, within=silence, **run),
        actions=[_crash("No heartbeat: its process is gone. Start it again: it goes on where it was.")],
    )
    yield AutomationCore(
        name="p2o: a run that never began has crashed",
        description="Its worker was killed between taking it and starting it; it would hold a place in the pool.",
        trigger=EventTrigger(
            after={"prefect.flow-run.Pending"},
            expect={"prefect.flow-run.*"},
            within=SLOW_START,
            **run,
        ),
        actions=[_crash("It did not begin: its worker is gone. Start it again.")],
    )
    if block := _notifier(client):
        yield AutomationCore(
            name="p2o: findings are sent on",
            description=f"Lost skills, no signal and stopped runs, to the notification block {NOTIFIER!r}.",
            trigger=EventTrigger(expect={LOST_SKILLS, NO_SIGNAL, STOPPED}, posture=Posture.Reactive, threshold=1),
            actions=[
                SendNotification(
                    block_document_id=block,
                    subject="P²O Lab: {{ event.resource.name }}",
                    body="{{ event.payload.message }}",
                )
            ],
        )


def _crash(message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message)


def _notifier(client: SyncPrefectClient) -> Any:
    for document in client.read_block_documents(include_secrets=False):
        kind = document.block_type.slug if document.block_type else ""
        if document.name == NOTIFIER and kind not in ("secret", "json", "string"):
            return document.id
    return None


def automate(client: SyncPrefectClient, silence: timedelta = SILENCE) -> str:
    names = []
    for automation in automations(client, silence):
        names.append(automation.name.removeprefix("p2o: "))
        known = client.read_automations_by_name(automation.name)
        if not known:
            client.create_automation(automation)
        elif [action.model_dump() for action in known[0].actions] != [a.model_dump() for a in automation.actions]:
            automation.enabled = known[0].enabled  # the block to notify by was made anew, say
            client.update_automation(known[0].id, automation)
    return f"Automations: {'; '.join(names)}"
