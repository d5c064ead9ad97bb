"""What both PyPI clients here are asked to do, and how they report what they saw.

A client script gives `main` the operations of its own SDK; this module only picks the
arguments, keeps the clock and prints one JSON line per scenario, in the same shape as
`scenarios.mjs`. Judging is the business of the test that reads these lines.
"""

import argparse
import asyncio
import json
import pathlib
import sys
import time
import urllib.parse

FIXTURES = json.loads(pathlib.Path(__file__).with_name("fixtures.json").read_text())
# A cookie no upstream has any business seeing.
COOKIE = "harbour=private"


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--token")
    parser.add_argument("--fixture", default="everything")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--tool")
    parser.add_argument("--args", default="{}")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--scenario", default="tools")
    values = parser.parse_args()
    values.seen = []
    values.fixture = FIXTURES[values.fixture]
    values.tool = [values.tool, json.loads(values.args)] if values.tool else None
    values.headers = {"cookie": COOKIE}
    if values.token:
        values.headers["authorization"] = f"Bearer {values.token}"
    return values


def observer(seen):
    """An httpx response hook writing down statuses and the headers a limit or challenge is told in."""

    async def observe(response):
        seen.append(
            {
                "method": response.request.method,
                "status": response.status_code,
                "content_type": response.headers.get("content-type"),
                "retry_after": response.headers.get("retry-after"),
                "challenge": response.headers.get("www-authenticate"),
            }
        )

    return observe


def failure(error):
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    told = getattr(error, "error", error)
    return {
        "message": str(getattr(told, "message", told)),
        "kind": type(error).__name__,
        "code": getattr(told, "code", None),
        "data": getattr(told, "data", None),
    }


def text(content):
    return "\n".join(getattr(block, "text", f"<{block.type}>") for block in content)


async def connect(_, sdk):
    return sdk.identity()


async def tools(_, sdk):
    return {"names": [tool.name for tool in await sdk.tools()]}


async def call(context, sdk):
    fixture_name, fixture_args = context.fixture["call"]
    name, args = context.tool or (context.prefix + fixture_name, fixture_args)
    content, is_error = await sdk.call(name, args)
    return {"text": text(content), "is_error": is_error}


async def resource(context, sdk):
    listed = await sdk.resources()
    wanted = next(each for each in listed if context.fixture["resource"] in str(each.uri))
    contents = await sdk.read(wanted.uri)
    return {
        "listed": len(listed),
        "uri": str(wanted.uri),
        "answered_uri": str(contents[0].uri),
        "text": contents[0].text,
    }


async def templates(_, sdk):
    return {"uris": await sdk.templates()}


async def prompt(context, sdk):
    name, args = context.fixture["prompt"]
    names = [each.name for each in await sdk.prompts()]
    messages = await sdk.prompt(context.prefix + name, args)
    return {"names": names, "text": text([message.content for message in messages])}


async def complete(context, sdk):
    name, argument = context.fixture["complete"]
    return {"values": await sdk.complete(context.prefix + name, argument)}


async def progress(context, sdk):
    started = time.monotonic()
    arrivals = []

    async def on_progress(progress, total, message):
        after_ms = round((time.monotonic() - started) * 1000)
        arrivals.append({"after_ms": after_ms, "progress": progress, "total": total})

    name, args = context.fixture["progress"]
    content, _ = await sdk.call(context.prefix + name, args, on_progress)
    finished_ms = round((time.monotonic() - started) * 1000)
    return {"arrivals": arrivals, "finished_ms": finished_ms, "text": text(content)}


async def parallel(context, sdk):
    """Several calls side by side on one connection: answers must not cross."""
    asked = [sdk.call(f"{context.prefix}echo", {"message": f"wave {index}"}) for index in range(8)]
    return {"texts": [text(content) for content, _ in await asyncio.gather(*asked)]}


async def burst(context, sdk):
    outcomes = []
    for _ in range(context.times):
        try:
            content, _ = await sdk.call(*context.tool)
            outcomes.append({"text": text(content)})
        except Exception as error:
            outcomes.append(failure(error))
    return {"outcomes": outcomes}


SHARED = {each.__name__: each for each in (connect, tools, call, resource, templates, prompt, complete, progress, parallel, burst)}


async def discover(context, http, auth, shared):
    """Discovers the authorization server as the SDK's own sign-in would, and says what it found."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    response = await http.post(
        context.url, json=body, headers={"accept": "application/json, text/event-stream"}
    )
    announced = auth.extract_resource_metadata_from_www_auth(response)
    found = [
        await auth.handle_protected_resource_response(await http.get(url))
        for url in auth.build_protected_resource_metadata_discovery_urls(announced, context.url)
    ]
    metadata = found[0]
    issuer = str(metadata.authorization_servers[0])
    server = None
    for url in auth.build_oauth_authorization_server_metadata_discovery_urls(issuer, context.url):
        _, server = await auth.handle_auth_metadata_response(await http.get(url))
        if server:
            auth.validate_metadata_issuer(server, issuer)
            break
    requested = shared.resource_url_from_server_url(context.url)
    allowed = shared.check_resource_allowed(requested, str(metadata.resource))
    return {
        "status": response.status_code,
        "announced": announced,
        "scope": auth.extract_scope_from_www_auth(response),
        "resource": str(metadata.resource),
        "fallback_resource": found[1] and str(found[1].resource),
        "selected": requested if allowed else None,
        "authorization_servers": [str(each) for each in metadata.authorization_servers],
        "issuer": server and str(server.issuer),
        "jwks_uri": server and server.model_dump(mode="json").get("jwks_uri"),
    }


class Consent:
    """A user who says yes: what an SDK's sign-in asks of the program around it, kept in memory."""

    redirect = "http://127.0.0.1:1/callback"

    def __init__(self, client_type):
        self.tokens = self.client = self.asked = self.callback = None
        self.client_type = client_type

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client

    async def open_page(self, url):
        # Where a browser would go: the issuer's page answers with the way back.
        async with self.client_type() as browser:
            page = await browser.get(url, follow_redirects=False)
        first = lambda query: {name: values[0] for name, values in urllib.parse.parse_qs(query).items()}
        self.asked = first(urllib.parse.urlsplit(url).query)
        self.callback = first(urllib.parse.urlsplit(page.headers["location"]).query)

    def metadata(self, metadata_type):
        return metadata_type(
            client_name="sign-in",
            redirect_uris=[self.redirect],
            grant_types=["authorization_code"],
            response_types=["code"],
            token_endpoint_auth_method="none",
        )


def without_token(context):
    return argparse.Namespace(**{**vars(context), "headers": {"cookie": COOKIE}})


async def signed_in(context, sdk, consent):
    """What an SDK that just signed in by itself can do; `context.seen` holds how it got there."""
    names = [tool.name for tool in await sdk.tools()]
    refused = next((each["status"] for each in context.seen), None)
    return {"refused": refused, "names": names, "resource": consent.asked.get("resource"), "scope": consent.asked.get("scope")}


async def report(context, scenario, run):
    context.seen.clear()
    started = time.monotonic()
    line = {"scenario": scenario}
    try:
        line["ok"] = await run()
    except BaseException as error:
        line["failed"] = failure(error)
    line["elapsed_ms"] = round((time.monotonic() - started) * 1000)
    line["http"] = list(context.seen)
    print(json.dumps(line), flush=True)


async def run_all(sdk):
    """`sdk` gives `session(context)`, an async context manager, and `alone`: scenarios that must not connect."""
    context = options()
    pending = context.scenario.split(",")
    for scenario in [name for name in pending if name in sdk.alone]:
        await report(context, scenario, lambda: sdk.alone[scenario](context))
    pending = [name for name in pending if name not in sdk.alone]
    if not pending:
        return
    try:
        async with sdk.session(context) as connected:
            own = getattr(connected, "own", {})
            while pending:
                scenario = pending.pop(0)
                body = SHARED.get(scenario) or own[scenario]
                await report(context, scenario, lambda: body(context, connected))
    except BaseException as error:
        line = {"failed": failure(error), "http": list(context.seen)}
        for scenario in pending:
            print(json.dumps({"scenario": scenario, **line}), flush=True)


def main(sdk):
    asyncio.run(run_all(sdk))
    sys.stdout.flush()
