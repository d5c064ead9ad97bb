"""PyPI `mcp` 2.x: the modern client. Tasks through its own extension interface."""

import contextlib
from typing import Any, Literal

import anyio
import httpx2
import mcp.client.auth.utils as auth
import mcp.shared.auth_utils as auth_urls
import mcp.types as types
import scenarios
from mcp import Client
from mcp.client import ClientExtension, ResultClaim
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata


class TaskHandle(types.Result):
    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    ttl_ms: int | None
    poll_interval_ms: int | None = None


class TaskState(types.Result):
    task_id: str
    status: str
    input_requests: dict[str, Any] | None = None
    result: Any = None
    error: Any = None


class TaskId(types.RequestParams):
    task_id: str


class GetTask(types.Request[TaskId, Literal["tasks/get"]]):
    name_param = "taskId"
    method: Literal["tasks/get"] = "tasks/get"
    params: TaskId


class Answers(TaskId):
    input_responses: dict[str, Any]


class UpdateTask(types.Request[Answers, Literal["tasks/update"]]):
    name_param = "taskId"
    method: Literal["tasks/update"] = "tasks/update"
    params: Answers


class Tasks(ClientExtension):
    """Polls a task to its end and answers what it asks, as the extension's text tells a client to."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self):
        self.handle, self.states, self.asked = None, [], []

    def claims(self):
        return [ResultClaim(result_type="task", model=TaskHandle, resolve=self._poll)]

    async def _poll(self, handle, context):
        self.handle, self.states = handle, [handle.status]
        while True:
            state = await self.state(context.session)
            self.states.append(state.status)
            if state.status == "input_required":
                await self.answer(context.session, state.input_requests)
            elif state.status not in ("working", "completed"):
                raise RuntimeError(f"{state.status}: {state.error}")
            elif state.status == "completed":
                return types.CallToolResult.model_validate(state.result)
            await anyio.sleep((handle.poll_interval_ms or 500) / 1000)

    async def answer(self, session, requests):
        self.asked += [request["params"]["message"] for request in requests.values()]
        answers = {key: {"action": "accept", "content": {"name": "Ada"}} for key in requests}
        params = Answers(task_id=self.handle.task_id, input_responses=answers)
        await session.send_request(UpdateTask(params=params), types.EmptyResult)

    async def state(self, session):
        return await session.send_request(GetTask(params=TaskId(task_id=self.handle.task_id)), TaskState)


class Connected:
    def __init__(self, client, tasks):
        self.client, self.tasks_extension = client, tasks
        self.own = {"task": self._task}

    @staticmethod
    async def _task(context, sdk):
        tasks = sdk.tasks_extension
        content, _ = await sdk.call(*context.tool)
        again = await tasks.state(sdk.client.session) if tasks.handle else None
        return {
            "kind": "task" if tasks.handle else "immediate",
            "id": tasks.handle and tasks.handle.task_id,
            "states": tasks.states,
            "asked": tasks.asked,
            "again": again and again.status,
            "status": tasks.states[-1] if tasks.states else "completed",
            "text": scenarios.text(content),
        }

    def identity(self):
        client = self.client
        modern = client.protocol_version >= "2026"
        capabilities = client.server_capabilities.model_dump(exclude_none=True)
        return {
            "era": "modern" if modern else "legacy",
            "version": client.protocol_version,
            "server": client.server_info and client.server_info.name,
            "capabilities": sorted(capabilities),
            "extensions": sorted(capabilities.get("extensions") or {}),
        }

    async def tools(self):
        return (await self.client.list_tools()).tools

    async def call(self, name, args, on_progress=None):
        result = await self.client.call_tool(name, args, progress_callback=on_progress)
        return result.content, result.is_error

    async def resources(self):
        return (await self.client.list_resources()).resources

    async def templates(self):
        return [each.uri_template for each in (await self.client.list_resource_templates()).resource_templates]

    async def read(self, uri):
        return (await self.client.read_resource(uri)).contents

    async def prompts(self):
        return (await self.client.list_prompts()).prompts

    async def prompt(self, name, args):
        return (await self.client.get_prompt(name, args)).messages

    async def complete(self, name, argument):
        ref = types.PromptReference(type="ref/prompt", name=name)
        return (await self.client.complete(ref, argument)).completion.values


def sign_in(context, consent):
    """The SDK's own OAuth, with a user who says yes."""

    async def callback():
        return AuthorizationCodeResult(**{key: consent.callback.get(key) for key in ("code", "state", "iss")})

    metadata = consent.metadata(OAuthClientMetadata)
    return OAuthClientProvider(
        context.url, metadata, consent, redirect_handler=consent.open_page, callback_handler=callback
    )


async def unexpected(context, params):
    raise RuntimeError("asked outside a task")


def http(context, auth=None):
    hooks = {"response": [scenarios.observer(context.seen)]}
    return httpx2.AsyncClient(headers=context.headers, auth=auth, event_hooks=hooks, timeout=30)


class Sdk:
    @staticmethod
    @contextlib.asynccontextmanager
    async def session(context, auth=None):
        # The extension is declared only where a task is asked for: other calls must stay synchronous.
        tasks = Tasks()
        with_tasks = "task" in context.scenario.split(",")
        extensions = [tasks] if with_tasks else None
        # Declares that it can be asked; a task's questions come to the extension.
        asked = unexpected if with_tasks else None
        async with http(context, auth) as client_http:
            transport = streamable_http_client(context.url, http_client=client_http)
            async with Client(
                transport, extensions=extensions, read_timeout_seconds=30, elicitation_callback=asked
            ) as client:
                yield Connected(client, tasks)

    @staticmethod
    async def discovery(context):
        async with http(context) as client_http:
            return await scenarios.discover(context, client_http, auth, auth_urls)

    @staticmethod
    async def sign_in(context):
        consent = scenarios.Consent(httpx2.AsyncClient)
        context = scenarios.without_token(context)
        async with Sdk.session(context, sign_in(context, consent)) as connected:
            return await scenarios.signed_in(context, connected, consent)


Sdk.alone = {"discovery": Sdk.discovery, "sign_in": Sdk.sign_in}

if __name__ == "__main__":
    scenarios.main(Sdk)
