"""PyPI `fastmcp` 4.x: a client built on the modern Python SDK."""

import contextlib
import datetime

import scenarios
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport


class Connected:
    def __init__(self, client):
        self.client = client

    def identity(self):
        session = self.client.session
        version = session.protocol_version
        return {"era": "modern" if version >= "2026" else "legacy", "version": version}

    async def tools(self):
        return await self.client.list_tools()

    async def call(self, name, args, on_progress=None):
        result = await self.client.call_tool(name, args, progress_handler=on_progress, raise_on_error=False)
        return result.content, result.is_error

    async def resources(self):
        return await self.client.list_resources()

    async def templates(self):
        return [each.uri_template for each in await self.client.list_resource_templates()]

    async def read(self, uri):
        return await self.client.read_resource(uri)

    async def prompts(self):
        return await self.client.list_prompts()

    async def prompt(self, name, args):
        return (await self.client.get_prompt(name, args)).messages

    async def complete(self, name, argument):
        ref = {"type": "ref/prompt", "name": name}
        return (await self.client.complete(ref, argument)).values


class Sdk:
    alone = {}

    @staticmethod
    @contextlib.asynccontextmanager
    async def session(context):
        transport = StreamableHttpTransport(context.url, headers=context.headers)
        async with Client(transport, timeout=datetime.timedelta(seconds=30)) as client:
            yield Connected(client)


if __name__ == "__main__":
    scenarios.main(Sdk)
