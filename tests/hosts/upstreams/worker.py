"""An upstream whose tools take as long as they are told, and that knows how often each ran.

    python worker.py PORT
"""

import asyncio
import sys
from collections import Counter
from typing import Annotated

import uvicorn
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from pydantic import BaseModel

server = MCPServer(name="worker")
begun = Counter()


class Name(BaseModel):
    name: str


def ask_name() -> Elicit[Name]:
    return Elicit("What is your name?", Name)


async def work_for(seconds: float, label: str, ctx: Context) -> str:
    begun[label] += 1
    for second in range(int(seconds)):
        await ctx.report_progress(second, seconds, "still at it")
        await asyncio.sleep(1)
    await asyncio.sleep(seconds % 1)
    return f"{label} is done"


@server.tool()
async def work(seconds: float, label: str, ctx: Context) -> str:
    """Works"""
    return await work_for(seconds, label, ctx)


@server.tool()
async def work_again(seconds: float, label: str, ctx: Context) -> str:
    """Works, and may do so twice"""
    return await work_for(seconds, label, ctx)


@server.tool()
async def work_maybe(seconds: float, label: str, ctx: Context) -> str:
    """Works, for a while or not"""
    return await work_for(seconds, label, ctx)


@server.tool()
async def ask_and_work(seconds: float, label: str, name: Annotated[Name, Resolve(ask_name)], ctx: Context) -> str:
    """Asks for a name before it works"""
    return f"{await work_for(seconds, label, ctx)}, {name.name}"


@server.tool()
async def runs(label: str) -> str:
    """Says how often that work was begun"""
    return str(begun[label])


if __name__ == "__main__":
    # Kept open: a request that meets the close of an idle connection may or may not have
    # arrived, and a task whose call may have arrived is not run again.
    uvicorn.run(
        server.streamable_http_app(), host="127.0.0.1", port=int(sys.argv[1]), timeout_keep_alive=600, log_level="error"
    )
