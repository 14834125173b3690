// Asks the server that the page came from, with the key of this tab if one was given.

/** Why the server did not answer as asked: its own sentence, and the status. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function useKey(key) {
  sessionStorage.setItem("key", key);
}

/** The answer to GET, or to POST where there is a body. */
export async function ask(path, { body, signal } = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...key && { Authorization: `Bearer ${key}` },
                    ...body && { "Content-Type": "application/json" } };
  const response = await fetch(path, { method: body ? "POST" : "GET", headers, signal,
                                       body: body && JSON.stringify(body) });
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);  // a proxy may answer with no JSON
  const message = answer?.error?.message ?? `the server answered ${response.status}`;
  throw new Refused(message, response.status);
}

/** The models that are served now. */
export async function askModels(signal) {
  const answer = await (await ask("v1/models", { signal })).json().catch(() => null);
  if (!answer?.data) throw new Refused("the server answered with no list of models", 200);
  return answer;
}

/** A file of images, how it was made, and how long that took. */
export async function askImages(body, signal) {
  const began = performance.now();
  const response = await ask("v1/generate", { body, signal });
  const file = await response.blob();
  const fact = name => response.headers.get(`X-Onestep-${name}`);
  return { file, ms: performance.now() - began,
           version: fact("Model"), steps: Number(fact("Steps")), guidance: fact("Guidance") };
}
