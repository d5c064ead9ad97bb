// Stands between the gateway and one of miniflare's simulators on bare workerd: counts what
// passes, by HTTP method, lets the tool that started the runtime read the counts, and cuts
// the simulator off while it is told to. What that tool writes, the configuration, passes
// uncounted.
const counts = {};
let isCut = false;

export default {
  fetch(request, env) {
    counts[request.method] = (counts[request.method] ?? 0) + 1;
    if (isCut) throw new Error("out of reach");
    return env.store.fetch(request);
  },
};

export const control = {
  async fetch(request, env) {
    if (request.method === "GET") return Response.json(counts);
    if (request.method !== "POST") return env.store.fetch(request);
    isCut = (await request.text()) === "cut";
    return new Response();
  },
};
