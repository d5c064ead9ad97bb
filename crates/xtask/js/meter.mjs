// Stands between the gateway and one of miniflare's simulators on bare workerd: counts what
// passes, by HTTP method, and lets the tool that started the runtime read the counts. What
// that tool writes, the configuration, passes uncounted.
const counts = {};

export default {
  fetch(request, env) {
    counts[request.method] = (counts[request.method] ?? 0) + 1;
    return env.store.fetch(request);
  },
};

export const control = {
  async fetch(request, env) {
    if (request.method === "GET") return Response.json(counts);
    return env.store.fetch(request);
  },
};
