// Keeps the list of jobs, or the page of one, up to date over server-sent events. The pages work without it.
"use strict";
(() => {
  const list = document.getElementById("jobs");
  const page = document.querySelector("[data-page-of]");
  if (!list && !page) return;

  const shown = (id) => document.querySelector(`[data-job="${CSS.escape(id)}"]`);
  const waiting = new Set();

  const recount = async () => {
    const line = document.querySelector(".queue");
    const answer = line && await fetch("/api/v1/queue");
    if (!answer?.ok) return;
    const queue = await answer.json();
    line.textContent = `${queue.queued} waiting, ${queue.running} running`;
  };

  const card = async (id) => {
    const answer = await fetch(`/jobs/${encodeURIComponent(id)}/card`);
    return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("article") : null;
  };

  // One fetch for all that happens to a job within a moment.
  const refresh = (id) => {
    if (waiting.has(id)) return;
    waiting.add(id);
    setTimeout(async () => {
      waiting.delete(id);
      if (page) { location.reload(); return; }
      recount();
      const old = shown(id);
      if (!old && list.dataset.live === undefined) return;
      const made = await card(id);
      if (!made) return;
      if (old) old.replaceWith(made); else { list.prepend(made); document.querySelector(".empty")?.remove(); }
    }, 300);
  };

  // The stage and the time left of a running job are worded by the server: asked for once in a while, the bar goes by what is told.
  const reworded = new Set();
  const reword = (id) => {
    if (reworded.has(id)) return;
    reworded.add(id);
    setTimeout(async () => {
      reworded.delete(id);
      const made = (await card(id))?.querySelector(".progress");
      if (made) (page ?? shown(id))?.querySelector(".progress")?.replaceWith(made);
    }, 1000);
  };

  const happened = (message) => {
    last = message.lastEventId;
    const id = JSON.parse(message.data).job_id;
    if (id && (!page || page.dataset.pageOf === id)) refresh(id);
  };
  const progressed = (message) => {
    const told = JSON.parse(message.data);
    const place = page ? (page.dataset.pageOf === told.job_id ? page : null) : shown(told.job_id);
    if (!place) return;
    const bar = place.querySelector("progress");
    if (!bar) { refresh(told.job_id); return; }
    bar.max = Math.max(1, told.windows_total);
    bar.value = told.windows_done;
    reword(told.job_id);
  };

  // A browser comes again by itself when a stream breaks off, and never when it was refused, as where too many are open.
  let last = "", refused = false;
  const open = () => {
    const source = new EventSource("/api/v1/events" + (last && `?last_event_id=${last}`));
    source.addEventListener("event", happened);
    source.addEventListener("progress", progressed);
    source.addEventListener("open", () => { if (refused && !last) location.reload(); });
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) return;
      refused = true;
      setTimeout(open, 15000 + 15000 * Math.random());
    });
  };
  open();
})();
