// npm `mcp-remote` without a token: it must find the authorization server, register, and
// come back with what the user's browser was given. Prints the tools it then shows.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { visit } from "./browser.mjs";

const BRIDGE = fileURLToPath(new URL("../../../node_modules/mcp-remote/dist/proxy.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "mcp-remote-"));
const wire = new StdioClientTransport({
  command: process.execPath,
  args: [BRIDGE, process.argv[2], "--transport", "http-only", "--host", "127.0.0.1"],
  env: { ...process.env, MCP_REMOTE_CONFIG_DIR: folder, BROWSER: "true" },
  stderr: "pipe",
});

let said = "";
let authorized = false;
wire.stderr.on("data", async (chunk) => {
  said += chunk;
  // Whole only when something follows it.
  const url = /(http:\/\/127\.0\.0\.1:\d+\/auth\?\S+)\s/.exec(said)?.[1];
  if (!url || authorized) return;
  authorized = true;
  const back = new URL(url).searchParams.get("redirect_uri");
  await bring(await visit(url, back));
});

// The bridge itself listens there; a user's browser takes longer than it needs for that.
async function bring(url, until = Date.now() + 20_000) {
  try {
    return await fetch(url);
  } catch (error) {
    if (error.cause?.code !== "ECONNREFUSED" || Date.now() > until) throw error;
    await new Promise((resolve) => setTimeout(resolve, 200));
    return bring(url, until);
  }
}

const client = new Client({ name: "mcp-remote", version: "1" });
try {
  await client.connect(wire, { timeout: 90_000 });
  const { tools } = await client.listTools();
  console.log(JSON.stringify({ authorized, names: tools.map((tool) => tool.name) }));
} catch (error) {
  console.error(said);
  throw error;
} finally {
  await client.close();
  rmSync(folder, { recursive: true });
}
process.exit();
