// Keeps the page and the package for when there is no network; models are kept by the package itself.
const CACHE = "pocketbert-page";

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const files = await (await fetch("files.json", { cache: "no-cache" })).json();
      await (await caches.open(CACHE)).addAll(files.map((file) => new Request(file, { cache: "no-cache" })));
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

// The network first, so that a new version is seen at once.
self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || /\/models\/./.test(request.url.replace("/models/index.json", ""))) return;
  event.respondWith(
    fetch(request).catch(async () => (await caches.match(request, { cacheName: CACHE, ignoreSearch: true })) ?? Response.error()),
  );
});
