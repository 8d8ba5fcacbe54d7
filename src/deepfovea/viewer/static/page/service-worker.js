// Keeps the page's files, so that the page works offline, and serves them with the headers that
// browsers require before a page may use shared memory, and so threads.

const VERSION = "development"; // `deepfovea page` writes a hash of all files here
const SHELL = []; // and here the files that are needed at first, without videos and models
const OURS = `deepfovea ${self.registration.scope} `; // prefix, as a host may have several pages
const CACHE = OURS + VERSION;
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", (event) => {
  const requests = SHELL.map((file) => new Request(file, { cache: "reload" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(OURS) && name !== CACHE) await caches.delete(name);
    }
    await self.clients.claim();
  })());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const here = request.url.startsWith(self.registration.scope);
  if (request.method === "GET" && here) event.respondWith(answer(request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  let response = await cache.match(request, { ignoreSearch: true, ignoreVary: true });
  if (!response) {
    response = await fetch(request);
    // If storage is full, the page still works, but not offline.
    if (response.status === 200) await cache.put(request, response.clone()).catch(() => {});
  }
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}
