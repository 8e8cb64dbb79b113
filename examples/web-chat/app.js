// The page: names, conversations, and the result of each message.

import { Connection } from "./connection.js";
import { element, time, watchPlugins } from "./plugins.js";
import { Present } from "./present.js";

/** The number of messages that a conversation keeps. */
const MESSAGES_MAX = 500;

/** How long a user is shown as typing after a `chat.typing`, and how often the page sends one. */
const TYPING_MS = 4_000;
const TYPING_EVERY_MS = 2_000;

/** Why messages of a room are missing. */
const GAPS = {
  epoch: "the server lost the history of this room",
  expired: "you were away for longer than messages are kept",
  too_many: "you were away for more messages than are sent again",
};

const at = (id) => document.getElementById(id);
const messages = at("messages");

let connection = null;
let current = null;
let saidTyping = 0;

/** Conversations by name, such as `@bob` or `#lobby`. */
const conversations = new Map();

// Sign-in.

const options = await fetch("options.json").then((answer) => answer.json()).catch(() => ({}));
at("token-field").hidden = options.auth !== "jwt";
at("token").required = options.auth === "jwt";
at("name").value = new URLSearchParams(location.search).get("name") ?? "";
at("name").focus();

at("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("name").value.trim();
  if (name) {
    enter(name, at("token").value.trim());
  }
});

at("leave").addEventListener("click", () => {
  connection.close();
  location.reload();
});

function enter(name, token) {
  const entering = new Connection(name, token, options.socket);
  let entered = false;
  connection = entering;
  entering.addEventListener("welcome", ({ detail }) => {
    entering.name = detail.userId;
    at("node").textContent = detail.nodeId;
    at("reconnects").textContent = entering.reconnects;
    if (!entered) {
      entered = true;
      begin(detail.userId);
    }
  });
  entering.addEventListener("state", ({ detail }) => {
    showState(detail);
    if (!entered && (detail.state === "lost" || detail.state === "ended")) {
      entering.close();
      refuse(detail);
    }
  });
  entering.addEventListener("frame", ({ detail }) => take(detail));
  entering.addEventListener("gap", ({ detail }) => missed(detail));
  entering.addEventListener("refused", ({ detail }) => {
    talk(`#${detail.room}`).isMember = false;
    add(`#${detail.room}`, { notice: `You are not a member any more: ${refusal(detail.payload)}` });
  });
}

function refuse({ code, reason }) {
  const why = reason ? `${reason} (${code})` : "the server is away, or refuses this name or token";
  at("sign-in-error").textContent = `Not connected: ${why}.`;
  at("sign-in-error").hidden = false;
  showState({ state: "offline" });
  at("name").focus();
}

function begin(name) {
  document.title = `${name} – Signalbox chat`;
  at("sign-in").hidden = true;
  at("chat").hidden = false;
  at("leave").hidden = false;
  at("plugins").open = matchMedia("(min-width: 961px)").matches;
  at("present").open = matchMedia("(min-width: 641px)").matches;
  watchPlugins(swapped);
  show();
  at("with").focus();
}

function showState({ state, reason, wait }) {
  const texts = {
    offline: "Not connected",
    connecting: "Connecting …",
    online: `Connected as ${connection.name}`,
    lost: `Connection lost${reason ? `: ${reason}` : ""}; trying again in ${((wait ?? 0) / 1000).toFixed(1)} s`,
    ended: `Disconnected${reason ? `: ${reason}` : ""}`,
  };
  at("state").dataset.state = state === "ended" ? "lost" : state;
  at("state-text").textContent = texts[state];
  at("send").disabled = at("text").disabled = state !== "online" || !current;
}

// Conversations.

at("open-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("with").value.trim();
  if (!name || name === "#") {
    return;
  }
  at("with").value = "";
  open(name.startsWith("#") || name.startsWith("@") ? name : `@${name}`);
});

async function open(key) {
  const conversation = talk(key);
  current = key;
  conversation.unread = 0;
  show();
  showState({ state: at("state").dataset.state });
  at("text").focus();
  if (!conversation.isMember && key.startsWith("#")) {
    conversation.isMember = true;
    const answer = await connection.join(key.slice(1));
    conversation.isMember = answer.type === "ack";
    const old = answer.payload.room?.count ? ". Its last messages:" : "";
    add(key, { notice: conversation.isMember ? `You are a member of this room${old}` : refusal(answer.payload) });
  }
}

function talk(key) {
  if (!conversations.has(key)) {
    const present = key.startsWith("#") ? new Present() : null;
    conversations.set(key, { items: [], unread: 0, typing: null, isMember: false, present, asking: new Set() });
  }
  return conversations.get(key);
}

function add(key, item) {
  const conversation = talk(key);
  conversation.items.push(item);
  if (conversation.items.length > MESSAGES_MAX) {
    conversation.items.shift();
  }
  if (key === current) {
    messages.querySelector(".empty")?.remove();
    messages.append(drawn(item));
    messages.scrollTop = messages.scrollHeight;
  } else if (!item.quiet) {
    conversation.unread += 1;
  }
  showConversations();
}

function show() {
  at("thread-title").textContent = current ? title(current) : "Nobody yet";
  const items = current ? talk(current).items : [];
  const hint = current
    ? "Nothing was said here since you connected."
    : "Open a conversation: the name of a user, or # and the name of a room.";
  messages.replaceChildren(...(items.length ? items.map(drawn) : [element("p", "empty", hint)]));
  messages.scrollTop = messages.scrollHeight;
  showConversations();
  showPresent();
  showTyping();
}

function showPresent() {
  const present = current && talk(current).present;
  at("present").hidden = !present?.show(at("present-total"), at("present-list"), connection.name);
}

function title(key) {
  return key.startsWith("@") ? key.slice(1) : key;
}

function showConversations() {
  const drawOne = ([key, { unread }]) => {
    const button = element("button", "");
    button.type = "button";
    button.append(element("span", "", title(key)));
    if (unread > 0) {
      const count = element("span", "unread", String(unread));
      count.setAttribute("aria-label", `${unread} unread`);
      button.append(count);
    }
    button.setAttribute("aria-current", String(key === current));
    button.addEventListener("click", () => open(key));
    const item = element("li", "");
    item.append(button);
    return item;
  };
  at("conversations").replaceChildren(...[...conversations].map(drawOne));
}

// Messages.

at("send-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value;
  if (!text || !current) {
    return;
  }
  at("text").value = "";
  saidTyping = 0;
  say(current, text);
});

at("text").addEventListener("input", () => {
  const now = Date.now();
  if (current && at("text").value && now - saidTyping > TYPING_EVERY_MS) {
    saidTyping = now;
    connection.tell({ type: "chat.typing", payload: { typing: true }, ...to(current) });
  }
});

function to(key) {
  return key.startsWith("#") ? { room: key.slice(1) } : { receiverId: key.slice(1) };
}

async function say(key, text) {
  const isMe = text.startsWith("/me ");
  const item = { who: connection.name, text: isMe ? `* ${connection.name} ${text.slice(4)}` : text, own: true, me: isMe };
  item.fate = "sending …";
  // Whether the room may still echo it, under an ID that no `ack` named.
  item.awaitsEcho = isMe;
  add(key, item);
  const frame = isMe ? { type: "chat.me", payload: text.slice(4) } : { type: "chat_message", payload: text };
  const asked = connection.ask({ ...frame, ...to(key) });
  const { asking } = talk(key);
  asking.add(asked);
  const answer = await asked;
  asking.delete(asked);
  item.refused = answer.type === "error";
  item.id = answer.payload.messageId;
  item.awaitsEcho ||= ["lost", "timeout"].includes(answer.payload.code);
  item.fate = item.refused ? refusal(answer.payload) : accepted(answer.payload, answer.ms);
  at("latency").textContent = `${answer.ms.toFixed(1)} ms`;
  item.drawn?.replaceWith(drawn(item));
}

function accepted({ status, plugins }, ms) {
  const parts = [status === "offline" ? "nobody of that name is connected" : status, `${ms.toFixed(1)} ms`];
  for (const { name, version, sha256 } of plugins ?? []) {
    parts.push([name, version, sha256].filter(Boolean).join(" "));
  }
  return parts.join(" · ");
}

function refusal({ code, message, plugin }) {
  return `${message} (${code}${plugin ? `, plugin ${plugin}` : ""})`;
}

function take({ type, payload, senderId, room, messageId, timestamp, isOld }) {
  const key = room ? `#${room}` : `@${senderId}`;
  if (type === "chat.typing") {
    if (senderId !== connection.name && !isOld) {
      typing(key, senderId);
    }
    return;
  }
  if (type === "error") {
    add(current ?? "@server", { notice: refusal(payload ?? {}) });
    return;
  }
  if (type === "presence") {
    talk(`#${payload.room}`).present.take(payload);
    showPresent();
    return;
  }
  if (!senderId && !room) {
    // `joined`, `left`, and messages from the platform.
    return;
  }
  if (room && senderId === connection.name) {
    takeOwn(key, { type, payload, messageId, timestamp });
    return;
  }
  receive(key, { type, payload, senderId, timestamp });
}

/** Rooms echo the user's own messages. Those of this page are already shown; others come from elsewhere, or from the history. */
async function takeOwn(key, { type, payload, messageId, timestamp }) {
  const { asking, items } = talk(key);
  if (asking.size > 0) {
    // Their answers tell which messages are of this page.
    await Promise.all(asking);
  }
  const text = textOf(payload);
  const isSame = (item) => (messageId && item.id === messageId) || (item.awaitsEcho && item.text === text);
  const shown = items.find((item) => item.own && isSame(item));
  if (!shown) {
    receive(key, { type, payload, senderId: connection.name, timestamp, own: true });
  } else if (shown.refused) {
    shown.refused = false;
    shown.fate = "delivered";
    shown.drawn?.replaceWith(drawn(shown));
  }
  if (shown) {
    shown.awaitsEcho = false;
  }
}

function textOf(payload) {
  const text = typeof payload === "string" ? payload : payload?.text;
  return typeof text === "string" ? text : (JSON.stringify(payload) ?? "");
}

function receive(key, { type, payload, senderId, timestamp, own }) {
  const label = type === "chat_message" ? senderId : `${senderId} (${type})`;
  talk(key).typing = null;
  add(key, { who: label, text: textOf(payload), me: payload?.me === true, at: timestamp, own, quiet: own });
  showTyping();
}

/** Messages of a room are missing here, and the last ones that the server has follow. */
function missed({ room, reason }) {
  const why = GAPS[reason] ?? GAPS.expired;
  add(`#${room}`, { notice: `Messages may be missing here: ${why}.`, gap: true });
}

function drawn(item) {
  if (item.notice) {
    const kind = item.swap ? " swap" : item.gap ? " gap" : "";
    return element("p", `notice${kind}`, item.notice);
  }
  const message = element("article", "message");
  message.classList.toggle("own", Boolean(item.own));
  message.classList.toggle("me", Boolean(item.me));
  message.classList.toggle("refused", Boolean(item.refused));
  item.at ??= new Date();
  message.append(element("p", "who", `${item.own ? "You" : item.who}, ${time(item.at)}`));
  message.append(element("p", "what", item.text));
  if (item.fate) {
    const fate = element("p", "fate", item.fate);
    if (item.refused) {
      fate.setAttribute("role", "alert");
    }
    message.append(fate);
  }
  item.drawn = message;
  return message;
}

function typing(key, who) {
  const conversation = talk(key);
  clearTimeout(conversation.typing?.timer);
  const timer = setTimeout(() => {
    conversation.typing = null;
    showTyping();
  }, TYPING_MS);
  conversation.typing = { who, timer };
  showConversations();
  showTyping();
}

function showTyping() {
  const who = current && talk(current).typing?.who;
  at("typing").textContent = who ? `${who} is typing …` : "";
}

function swapped(name, old, version) {
  const notice = `Plugin ${name} was swapped: ${old ?? "none"} → ${version ?? "none"}. Nobody was disconnected.`;
  if (current) {
    add(current, { notice, swap: true, quiet: true });
  }
}
