"use strict";
// Keys, and an outbox: an answer stays in this browser until the server says that it is on disk. Without this script
// the same forms are posted by the browser itself.

const who = () => document.body.dataset.who ?? "";
const REPEAT_MS = 250; // a key held down repeats faster than this
const RETRY_MS = [500, 1000, 2000, 5000, 10000];
const REFUSED = new Set([400, 404, 409, 413, 415, 422]); // sending it again would change nothing

// ---- the outbox: one list per person, oldest first, surviving reloads and restarts

const outbox = {
  name: () => `outbox:${who()}`,
  read() {
    try { return JSON.parse(localStorage.getItem(this.name())) ?? []; } catch { return []; }
  },
  write(entries) {
    entries.length ? localStorage.setItem(this.name(), JSON.stringify(entries)) : localStorage.removeItem(this.name());
  },
  add(entry) { this.write([...this.read().filter((other) => other.key !== entry.key), entry]); },
  remove(key) { this.write(this.read().filter((entry) => entry.key !== key)); },
};

let sending = false;
let attempts = 0;
let retryTimer = 0;

async function sendAll() {
  if (sending) return;
  sending = true;
  clearTimeout(retryTimer);
  let sent = 0;
  try {
    for (let entry; (entry = outbox.read()[0]); sent++) {
      if (!(await send(entry))) return;
      outbox.remove(entry.key);
      attempts = 0;
    }
    if (sent) await load("/");
  } finally {
    sending = false;
    document.body.classList.toggle("busy", outbox.read().length > 0);
  }
}

// Resolve to true once the entry is settled: saved, or refused for good and said so.
async function send(entry) {
  const body = new URLSearchParams(entry.fields);
  body.set("form_token", document.body.dataset.token);
  let reply;
  try {
    reply = await fetch(entry.url, { method: "POST", body, headers: { Accept: "application/json" } });
  } catch {
    return later("The server does not answer. Your answer is kept in this browser and sent again.");
  }
  if (reply.ok) return forget(entry);
  const { error } = await reply.json().catch(() => ({ error: `The server replied ${reply.status}.` }));
  if (REFUSED.has(reply.status)) {
    sessionStorage.setItem("notice", error);
    return true; // the draft stays: what somebody wrote is not thrown away with a refusal
  }
  return later(`${error} Your answer is kept in this browser.`);
}

function forget(entry) {
  if (entry.draft) localStorage.removeItem(entry.draft);
  return true;
}

function later(words) {
  say(words, true);
  retryTimer = setTimeout(sendAll, RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
  return false;
}

function say(words, warn = false) {
  const status = document.querySelector(".status");
  if (!status) return;
  status.textContent = words;
  status.classList.toggle("warn", warn);
}

// ---- moving from page to page without a flash

async function load(url) {
  try {
    const reply = await fetch(url);
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    document.title = page.title;
    document.body.replaceWith(page.body);
    if (location.pathname !== url) history.pushState(null, "", url);
    scrollTo(0, 0);
    (document.querySelector("[autofocus]") ?? document.querySelector("main")).focus({ preventScroll: true });
    begin();
  } catch {
    say("The server does not answer. Load the page again once it does.", true);
  }
}

// ---- time spent looking, without the time in other tabs

let looked = 0;
let since = 0;
const lookedMs = () => Math.round(looked + (since ? performance.now() - since : 0));

document.addEventListener("visibilitychange", () => {
  looked = lookedMs();
  since = document.hidden ? 0 : performance.now();
});

// ---- forms

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.display !== undefined) return show(event);
  if (form.dataset.outbox === undefined) return;
  event.preventDefault();
  if (sending || outbox.read().length) return;
  if (form.elements.milliseconds) form.elements.milliseconds.value = lookedMs();
  const fields = [...new FormData(form, event.submitter)].filter(([name]) => name !== "form_token");
  const draft = form.querySelector("[data-draft]");
  event.submitter?.classList.add("chosen");
  try {
    outbox.add({ key: form.elements.key.value, url: form.getAttribute("action"), fields, draft: draft && draftName(draft) });
  } catch { // no storage in this browser: post the form as without a script
    return HTMLFormElement.prototype.submit.call(withSubmitter(form, event.submitter));
  }
  document.body.classList.add("busy");
  say("Saving");
  sendAll();
});

function withSubmitter(form, submitter) {
  if (submitter?.name) {
    const field = Object.assign(document.createElement("input"), { type: "hidden", name: submitter.name, value: submitter.value });
    form.append(field);
  }
  return form;
}

function show(event) {
  event.preventDefault();
  const { name, value } = event.submitter;
  const body = new URLSearchParams({ form_token: document.body.dataset.token, [name]: value });
  document.documentElement.dataset[name] = value;
  label(name, value);
  fetch("/display", { method: "POST", body, headers: { Accept: "application/json" } }).catch(() => {});
}

function label(name, value) {
  const button = document.querySelector(`button[name="${name}"]`);
  if (name === "view") {
    button.value = value === "raw" ? "rendered" : "raw";
    button.querySelector("[data-label]").textContent = value === "raw" ? "Formatted" : "Plain";
  } else {
    button.value = { auto: "dark", dark: "light", light: "auto" }[value];
    button.title = `Colours: ${value}; change to ${button.value}`;
    button.setAttribute("aria-label", `Change the colours to ${button.value}`);
  }
}

// ---- drafts

const draftName = (field) => `draft:${who()}:${field.dataset.draft}`;

document.addEventListener("input", ({ target }) => {
  if (!target.dataset?.draft) return;
  try { localStorage.setItem(draftName(target), target.value); } catch { /* then only the page keeps it */ }
});

// ---- keys

let last = { key: "", at: -Infinity };

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  const writing = target.matches?.("textarea, input:not([type=radio]):not([type=checkbox])");
  if (key === "Escape") {
    target.blur?.();
    document.querySelector(".help")?.removeAttribute("open");
    return;
  }
  if (event.isComposing || event.altKey || event.metaKey) return;
  const name = event.ctrlKey ? `Control+${key}` : key.length === 1 ? key.toLowerCase() : key;
  if (writing && !event.ctrlKey) return;
  const held = event.repeat || (name === last.key && event.timeStamp - last.at < REPEAT_MS);
  last = { key: name, at: event.timeStamp };
  const action = held ? null : actionOf(name);
  if (!action) return;
  event.preventDefault();
  action();
});

function actionOf(name) {
  const target = document.querySelector(`[data-key="${CSS.escape(name)}"]`);
  if (target) return target.type === "radio" ? () => pick(target) : () => target.click();
  const help = document.querySelector(".help");
  const reason = document.querySelector("textarea");
  if (name === "?" && help) return () => help.toggleAttribute("open");
  if (name === "m") return () => document.querySelector('button[name="view"]')?.click();
  if (name === "r" && reason) return () => { openExtras(); reason.focus(); };
  return null;
}

function openExtras() {
  const more = document.querySelector("#more");
  if (more) more.checked = true;
}

function pick(radio) {
  radio.checked = !radio.checked;
}

// A second click on a chosen strength takes it back.
document.addEventListener("pointerdown", ({ target }) => {
  const radio = target.closest?.(".segments label")?.querySelector("input");
  if (radio) radio.dataset.was = radio.checked ? "yes" : "";
});
document.addEventListener("click", ({ target }) => {
  if (target.matches?.(".segments input") && target.dataset.was) {
    target.checked = false;
    target.dataset.was = "";
  }
  const help = document.querySelector(".help[open]");
  if (help && !help.contains(target)) help.removeAttribute("open");
  if (target.matches?.(".link")) target.select();
});

// ---- whenever a page is there

let againTimer = 0;

function begin() {
  looked = 0;
  since = document.hidden ? 0 : performance.now();
  for (const field of document.querySelectorAll("[data-draft]")) {
    try { field.value = localStorage.getItem(draftName(field)) ?? field.value; } catch { /* nothing kept */ }
  }
  const notice = sessionStorage.getItem("notice");
  if (notice) say(notice, true);
  sessionStorage.removeItem("notice");
  clearTimeout(againTimer);
  const seconds = Number(document.querySelector("[data-again]")?.dataset.again ?? 0);
  if (seconds) againTimer = setTimeout(() => load("/"), 1000 * seconds);
  if (who() && outbox.read().length && !sending) {
    document.body.classList.add("busy");
    sendAll();
  }
}

addEventListener("popstate", () => location.reload());
document.documentElement.classList.add("script");
begin();
