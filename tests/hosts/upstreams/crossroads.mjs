// Stands before two gateways that share their state and sends every answer to a question to
// the one that did not ask it.
//
//     node crossroads.mjs --asks PORT --hears PORT
//
// A posted JSON-RPC response and a call that carries `inputResponses` are answers; they go to
// `hears`, all else to `asks`. Prints its own port as a JSON line, and tells at `/answers`
// which answers went where.
import http from "node:http";
import { parseArgs } from "node:util";

const text = { type: "string" };
const { values } = parseArgs({ options: { asks: text, hears: text } });

const answered = [];

/** What an answer answers, or nothing. */
function answers(body) {
  try {
    const message = JSON.parse(body);
    if (message.method === undefined && message.id !== undefined) return "response";
    return message.params?.inputResponses && message.method;
  } catch {
    return undefined;
  }
}

async function forward(request, response) {
  if (request.url === "/answers") {
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answered));
    return;
  }
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const answer = answers(body.toString("utf8"));
  const port = answer ? values.hears : values.asks;
  const onward = http.request({
    host: "127.0.0.1",
    port,
    path: request.url,
    method: request.method,
    headers: { ...request.headers, host: `127.0.0.1:${port}` },
  });
  onward.on("error", () => (response.headersSent ? response.destroy() : response.writeHead(502).end()));
  response.on("close", () => onward.destroy());
  onward.on("response", (reply) => {
    if (answer) answered.push({ answer, path: request.url, port: Number(port), status: reply.statusCode });
    response.writeHead(reply.statusCode, reply.headers);
    response.flushHeaders();
    reply.on("error", () => response.destroy()).pipe(response);
  });
  onward.end(body);
}

const server = http.createServer((request, response) => forward(request, response).catch(() => response.destroy()));
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
