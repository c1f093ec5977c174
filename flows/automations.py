"""`python -m flows.automations`: create or update the queues and automations of flows/automations.yaml on the server.

GANOPS_NOTIFY_URL holds an apprise address (https://github.com/caronc/apprise) of whoever is to be notified. It is an
environment variable because it may contain a password, which does not belong among a process's arguments. Without it
the automations are created all the same, and what they see is in the server's event feed. Exit codes: 0 done, 1
refused, 2 usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from flows.command import command
from flows.state import settle

FILE = Path(__file__).with_name("automations.yaml")
BLOCK = "ganops-notify"
_BODY = (  # a gate gives its reason as `reason`, a run as the message of its state; the other is empty
    "{{ automation.description }} {{ event.resource['prefect.resource.name'] }}, {{ event.event }}:"
    " {{ event.payload.reason }}{{ event.payload.validated_state.message }}"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Bring the server in line with the file and print what was done; returns the exit code."""
    argparse.ArgumentParser(prog="python -m flows.automations", description=__doc__).parse_args(argv)

    def act() -> int:
        settle()
        sys.stdout.write("\n".join(arrange(os.environ.get("GANOPS_NOTIFY_URL"))) + "\n")
        return 0

    return command("automations", act)


def arrange(notify: str | None) -> list[str]:
    """Create or update queues and automations on the server of PREFECT_API_URL; returns what was done, one line each.

    Raises ValueError if no server answers or refuses, or if `notify` is not an address that apprise knows.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ValueError(
            "PREFECT_API_URL is not set; set it to the address of a server that stays, which keeps the automations"
        )
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    plan = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    try:
        with get_client(sync_client=True) as client:
            told = [_queue(client, **queue) for queue in plan["queues"]]
            block = _block(notify) if notify else None
            return told + [_automation(client, item, block) for item in plan["automations"]]
    except (httpx.TransportError, RuntimeError) as error:
        raise ValueError(f"the server at PREFECT_API_URL does not answer: {error or type(error).__name__}") from None
    except PrefectHTTPStatusError as error:
        raise ValueError(f"the server at PREFECT_API_URL refused: HTTP {error.response.status_code}") from None


def _queue(client: Any, pool: str, name: str, limit: int) -> str:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    try:
        queue = client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        queue = client.create_work_queue(name, work_pool_name=pool)
    client.update_work_queue(queue.id, concurrency_limit=limit)
    return f"queue {pool}/{name}: {limit} at a time"


def _block(notify: str) -> str:
    """Id of the block that knows whom to notify; the server keeps the address encrypted.

    Prefect ships a class per service and none for apprise as such, but Slack's passes any other address to apprise.
    """
    from apprise import Apprise
    from prefect.blocks.notifications import SlackWebhook
    from pydantic import SecretStr

    if not Apprise().add(notify):
        raise ValueError(
            "GANOPS_NOTIFY_URL is not an address that apprise knows; see https://github.com/caronc/apprise"
        )
    return str(SlackWebhook(url=SecretStr(notify)).save(BLOCK, overwrite=True))


def _automation(client: Any, item: dict[str, Any], block: str | None) -> str:
    """Create or update one automation, found by its name; one that somebody switched off stays off."""
    from prefect.events.schemas.automations import AutomationCore

    actions = list(item["actions"])
    if block is not None and not actions:  # an automation with actions of its own causes an event that another reports
        actions.append(
            {"type": "send-notification", "block_document_id": block, "subject": item["name"], "body": _BODY}
        )
    actions = actions or [{"type": "do-nothing"}]
    wanted = {"name": item["name"], "description": item["description"], "trigger": item["trigger"], "actions": actions}
    found = client.read_automations_by_name(item["name"])
    if not found:
        client.create_automation(AutomationCore.model_validate(wanted))
        return f"{item['name']}: created"
    client.update_automation(found[0].id, AutomationCore.model_validate({**wanted, "enabled": found[0].enabled}))
    return f"{item['name']}: updated"


if __name__ == "__main__":
    sys.exit(main())
