// The least a Worker in front of an upstream can do: what the runtime itself costs, as the
// benchmark's second yardstick.
export default {
  fetch(request, env) {
    return fetch(new Request(env.UPSTREAM, request));
  },
};
