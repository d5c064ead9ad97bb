"""A client that comes by HTTP+SSE, by PyPI `mcp` 1.x; prints what it saw as JSON."""

import asyncio
import json
import os
import sys

from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.types import CreateMessageResult, TextContent


async def sample(context, params):
    content = TextContent(type="text", text="!")
    return CreateMessageResult(role="assistant", content=content, model="m-7")


async def main(url):
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    async with (
        sse_client(url, headers=headers) as (read, write),
        ClientSession(read, write, sampling_callback=sample) as session,
    ):
        opened = await session.initialize()
        tools = sorted(tool.name for tool in (await session.list_tools()).tools)
        said = {}
        for tool, arguments in (("old__greet", {"name": "Ada"}), ("old__consult", {})):
            result = await session.call_tool(tool, arguments)
            said[tool] = result.content[0].text
        server = opened.serverInfo.name
        print(json.dumps({"server": server, "tools": tools, "said": said}))


asyncio.run(main(sys.argv[1]))
