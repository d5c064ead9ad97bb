"""A server that knows only HTTP+SSE, the transport of 2024-11-05, by PyPI `mcp` 1.x."""

import sys

from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent

server = FastMCP("old", host="127.0.0.1", port=int(sys.argv[1]), log_level="ERROR")


@server.tool()
def greet(name: str) -> str:
    """Greets."""
    return f"Hello, {name}!"


@server.tool()
async def consult(context: Context) -> str:
    """Asks the client's model before it answers."""
    question = SamplingMessage(role="user", content=TextContent(type="text", text="?"))
    answer = await context.session.create_message(messages=[question], max_tokens=5)
    return f"Thus spoke {answer.model}."


server.run(transport="sse")
