"""The experimental tasks of 2025-11-25 in PyPI `mcp` 1.x."""

from datetime import timedelta

import mcp.types as types
import scenarios
from mcp.shared.exceptions import McpError

RELATED = "io.modelcontextprotocol/related-task"
TTL_MS = 600_000
# Longest one request waits: a task's result comes when the task ends.
PATIENCE = timedelta(seconds=300)
USUAL = timedelta(seconds=30)


class Tasks:
    """What a session needs to call tools as tasks, and what it was asked."""

    def __init__(self, context):
        self.asked = []
        self.wanted = any(name.startswith("task") for name in context.scenario.split(","))

    def options(self):
        # Whoever calls tools as tasks can be asked; other calls must not be.
        if self.wanted:
            return {"read_timeout_seconds": PATIENCE, "elicitation_callback": self.answer}
        return {"read_timeout_seconds": USUAL}

    async def answer(self, context, params):
        """Answers every question, and writes down whose task asked."""
        related = context.meta and context.meta.model_dump().get(RELATED)
        self.asked.append({"message": params.message, "task": related and related["taskId"]})
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    def scenarios(self, session):
        async def create(context):
            name, args = context.tool
            created = await session.experimental.call_tool_as_task(name, args, ttl=TTL_MS)
            return created.task

        async def task(context, _):
            """Calls the tool as a task and waits where its result comes."""
            api = session.experimental
            created = await create(context)
            states = [created.status, (await api.get_task(created.taskId)).status]
            result = await api.get_task_result(created.taskId, types.CallToolResult)
            again = (await api.get_task(created.taskId)).status
            listed = (await api.list_tasks()).tasks
            return {
                "kind": "task",
                "id": created.taskId,
                "ttl": created.ttl,
                "states": states,
                "asked": self.asked,
                "again": again,
                "status": again,
                "listed": [each.status for each in listed if each.taskId == created.taskId],
                "related": (result.meta or {}).get(RELATED, {}).get("taskId"),
                "text": scenarios.text(result.content),
            }

        async def task_stream(context, _):
            """Lets the SDK poll until the end, then takes the result."""
            api = session.experimental
            created = await create(context)
            states = [each.status async for each in api.poll_task(created.taskId)]
            result = await api.get_task_result(created.taskId, types.CallToolResult)
            told = ["taskCreated", *["taskStatus" for _ in states], "result"]
            return {"told": told, "text": scenarios.text(result.content), "asked": self.asked}

        async def task_cancel(context, _):
            """Cancels a task, twice."""
            api = session.experimental
            id = (await create(context)).taskId
            cancelled = await api.cancel_task(id)
            try:
                await api.cancel_task(id)
                twice = None
            except McpError as error:
                twice = error.error.code
            return {"status": cancelled.status, "again": (await api.get_task(id)).status, "twice": twice}

        return {"task": task, "task_stream": task_stream, "task_cancel": task_cancel}
