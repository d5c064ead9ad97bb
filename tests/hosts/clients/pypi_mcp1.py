"""PyPI `mcp` 1.x: the legacy client. It opens with `initialize`."""

import contextlib

import httpx
import mcp.client.auth.utils as auth
import mcp.shared.auth_utils as auth_urls
import mcp.types as types
import scenarios
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from pypi_mcp1_tasks import Tasks


class Connected:
    def __init__(self, session, opened, tasks):
        self.session, self.opened = session, opened
        self.own = tasks.scenarios(session)

    def identity(self):
        return {
            "era": "legacy",
            "version": self.opened.protocolVersion,
            "server": self.opened.serverInfo.name,
            "capabilities": sorted(self.opened.capabilities.model_dump(exclude_none=True)),
        }

    async def tools(self):
        return (await self.session.list_tools()).tools

    async def call(self, name, args, on_progress=None):
        result = await self.session.call_tool(name, args, progress_callback=on_progress)
        return result.content, result.isError

    async def resources(self):
        return (await self.session.list_resources()).resources

    async def templates(self):
        return [each.uriTemplate for each in (await self.session.list_resource_templates()).resourceTemplates]

    async def read(self, uri):
        return (await self.session.read_resource(uri)).contents

    async def prompts(self):
        return (await self.session.list_prompts()).prompts

    async def prompt(self, name, args):
        return (await self.session.get_prompt(name, args)).messages

    async def complete(self, name, argument):
        ref = types.PromptReference(type="ref/prompt", name=name)
        return (await self.session.complete(ref, argument)).completion.values


def sign_in(context, consent):
    """The SDK's own OAuth, with a user who says yes."""

    async def callback():
        return consent.callback["code"], consent.callback.get("state")

    metadata = consent.metadata(OAuthClientMetadata)
    return OAuthClientProvider(
        context.url, metadata, consent, redirect_handler=consent.open_page, callback_handler=callback
    )


def http(context, auth=None):
    hooks = {"response": [scenarios.observer(context.seen)]}
    return httpx.AsyncClient(headers=context.headers, auth=auth, event_hooks=hooks, timeout=30)


class Sdk:
    @staticmethod
    @contextlib.asynccontextmanager
    async def session(context, auth=None):
        async with http(context, auth) as client_http:
            tasks = Tasks(context)
            async with streamable_http_client(context.url, http_client=client_http) as (read, write, _):
                async with ClientSession(read, write, **tasks.options()) as session:
                    yield Connected(session, await session.initialize(), tasks)

    @staticmethod
    async def discovery(context):
        async with http(context) as client_http:
            return await scenarios.discover(context, client_http, auth, auth_urls)

    @staticmethod
    async def sign_in(context):
        consent = scenarios.Consent(httpx.AsyncClient)
        context = scenarios.without_token(context)
        async with Sdk.session(context, sign_in(context, consent)) as connected:
            return await scenarios.signed_in(context, connected, consent)


Sdk.alone = {"discovery": Sdk.discovery, "sign_in": Sdk.sign_in}

if __name__ == "__main__":
    scenarios.main(Sdk)
