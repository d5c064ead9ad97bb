// A recording pass-through in front of a real upstream.
//
// `recorder.mjs --upstream URL` listens on a free loopback port, prints that port as one JSON
// line, and passes every request on, streaming both ways. `GET /recorded` answers with the head
// of each request seen so far: what an upstream could have learned about the client. Bodies
// pass by unread.
import http from "node:http";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { upstream: { type: "string" } } });
const upstream = new URL(values.upstream);
const recorded = [];

const server = http.createServer((request, response) => {
  if (request.url === "/recorded") {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(recorded));
    return;
  }
  recorded.push({ method: request.method, path: request.url, headers: request.headers });
  const onward = http.request(
    { host: upstream.hostname, port: upstream.port, path: request.url, method: request.method, headers: { ...request.headers, host: upstream.host } },
    (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      answer.pipe(response);
    },
  );
  onward.on("error", () => response.destroy());
  response.on("close", () => onward.destroy());
  request.pipe(onward);
});

server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
// The test holds our stdin: when it is gone, so are we.
process.stdin.resume().on("end", () => process.exit(0));
