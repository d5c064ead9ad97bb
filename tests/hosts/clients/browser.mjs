// A user's browser, as far as signing in needs one: it follows redirections and keeps
// cookies for as long as one sign-in takes.

/** Visits `url` until it leads to a page of `callback`; gives that address. */
export async function visit(url, callback) {
  const cookies = new Map();
  let next = new URL(url);
  for (let step = 0; step < 20; step += 1) {
    if (next.href.startsWith(callback)) return next;
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const page = await fetch(next, { redirect: "manual", headers: { cookie } });
    for (const line of page.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      cookies.set(name, value);
    }
    const location = page.headers.get("location");
    if (!location) throw new Error(`${page.status} at ${next.pathname}: ${(await page.text()).slice(0, 400)}`);
    next = new URL(location, next);
  }
  throw new Error("a sign-in that never ends");
}
