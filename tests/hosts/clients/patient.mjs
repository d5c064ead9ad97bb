// npm `@modelcontextprotocol/client` 2.x with a person behind it who thinks before answering.
//
//     node patient.mjs --url URL --era auto|legacy --tool NAME --thinks-ms N [--token T]
//
// Prints one JSON line: what the tool said, the era, and how long the person took.
import { parseArgs } from "node:util";
import * as mcp from "@modelcontextprotocol/client";

const text = { type: "string" };
const { values } = parseArgs({ options: { url: text, era: text, tool: text, "thinks-ms": text, token: text } });
const thinking = Number(values["thinks-ms"]);
/** Longer than the person and everything in between. */
const timeout = thinking + 60_000;

const client = new mcp.Client(
  { name: "patient", version: "1" },
  { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode: values.era } },
);
const asked = [];
client.setRequestHandler("elicitation/create", async ({ params }) => {
  asked.push(params.message);
  await new Promise((resolve) => setTimeout(resolve, thinking));
  return { action: "accept", content: { name: "Ada" } };
});
const authProvider = values.token && { token: async () => values.token };
const started = performance.now();
const report = {};
try {
  await client.connect(new mcp.StreamableHTTPClientTransport(new URL(values.url), { authProvider }));
  report.era = client.getProtocolEra();
  const result = await client.callTool({ name: values.tool, arguments: {} }, { timeout });
  report.text = result.content[0]?.text;
  report.is_error = result.isError ?? false;
} catch (error) {
  report.failed = String(error?.message ?? error);
}
console.log(JSON.stringify({ ...report, asked, took_ms: Math.round(performance.now() - started) }));
await client.close();
process.exit(0);
