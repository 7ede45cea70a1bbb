// What the pages do beyond plain HTML. All of them work without it.
(() => {
  "use strict";
  const PAGES = { o: "", q: "queues", t: "tasks", e: "errors", c: "cron", p: "processes", a: "audit" };
  let etag = null;
  let held = false;
  let went = false;

  const status = document.getElementById("live-status");
  const isTyping = (element) => element?.closest("input, textarea, select, [contenteditable]");
  const isBusy = () => document.hidden || held || String(getSelection()) !== "";

  // The page is asked for again only while somebody looks at it, and comes back only if it has changed.
  document.addEventListener("htmx:config:request", (event) => {
    if (isBusy()) {
      event.preventDefault();
      return;
    }
    if (etag) event.detail.ctx.request.headers["If-None-Match"] = etag;
  });
  document.addEventListener("htmx:after:request", (event) => {
    const response = event.detail.ctx.response;
    if (response.status === 200) etag = response.headers.get("etag");
  });

  const hold = () => {
    held = !held;
    if (status) status.textContent = held ? "Updates are held: press Space to go on." : "Updates go on.";
  };

  const go = (key) => {
    if (key in PAGES) location.href = `${document.body.dataset.base}/${PAGES[key]}`;
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    const key = event.key;
    if (went) {
      went = false;
      go(key);
    } else if (key === "g") {
      went = true;
    } else if (key === "/") {
      const box = document.getElementById("filter");
      if (box) {
        event.preventDefault();
        box.focus();
        box.select();
      } else {
        location.href = `${document.body.dataset.base}/tasks`;
      }
    } else if (key === "?") {
      const keys = document.getElementById("keys");
      keys.open = !keys.open;
      keys.querySelector("summary").focus();
    } else if (key === " " && event.target === document.body) {
      event.preventDefault();
      hold();
    }
  });

  // A progress page goes on by itself; its button does the same.
  const form = document.querySelector("form[data-goes-on]");
  if (form) setTimeout(() => form.requestSubmit(), 400);
})();
