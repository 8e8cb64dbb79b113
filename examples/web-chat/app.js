// The page: names, conversations, and the result of each message.

import { Debug } from "./debug.js";
import { drawn, fateOf, redraw, refusal, textOf } from "./lines.js";
import { element, watchPlugins } from "./plugins.js";
import { showPresent } from "./present.js";
import { Signalbox } from "./signalbox.js";

/** The number of messages that a conversation keeps. */
const MESSAGES_MAX = 500;

/** The old messages of a room that the page asks for. */
const LAST = 50;

/** How long a user is shown as typing after a `chat.typing`, and how often the page sends one. An older one comes from a history. */
const TYPING_MS = 4_000;
const TYPING_EVERY_MS = 2_000;
const TYPING_OLD_MS = 10_000;

/** Why messages of a room are missing. */
const GAPS = {
  epoch: "the server lost the history of this room",
  expired: "you were away for longer than messages are kept",
  too_many: "you were away for more messages than are sent again",
};

/** The codes of errors after which a message may have been delivered. */
const UNCERTAIN = ["connection_lost", "in_progress", "timeout"];

const at = (id) => document.getElementById(id);
const messages = at("messages");
const debug = new URLSearchParams(location.search).has("debug") ? new Debug(at("figures")) : undefined;

let client;
let current;
let saidTyping = 0;

/** The name of this user, as the server has it; empty before the first connection. */
let user = "";

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
  client.close();
  location.reload();
});

at("connect").addEventListener("click", () => client.connect());

function enter(name, token) {
  at("sign-in-error").hidden = true;
  const url = new URL(`..${options.socket ?? "/ws"}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("trace", "plugins");
  const entering = new Signalbox({ url: url.href, ...(token ? { token } : { userId: name }) });
  let connections = 0;
  const earlier = client;
  client = entering;
  earlier?.close();
  client.on("state", (change) => {
    if (client !== entering) {
      return;
    }
    if (change.state === "connected") {
      connections += 1;
      user = entering.session.userId;
      at("node").textContent = entering.session.nodeId;
      at("reconnects").textContent = connections - 1;
    }
    showState(change);
    if (change.state === "connected" && connections === 1) {
      begin();
    } else if (connections === 0 && change.state !== "connecting") {
      client = undefined;
      entering.close();
      refuse(change);
    }
  });
  client.on("message", take);
  client.on("recovered", (recovery) => {
    const direct = [...conversations.keys()].filter((key) => key.startsWith("@"));
    returned(direct, recovery);
  });
  client.on("error", (error) => {
    // The state says why a client is closed.
    if (client === entering && entering.state !== "closed") add(current ?? "@server", { notice: refusal(error) });
  });
  debug?.watch(client);
  client.connect();
}

function refuse({ code, reason }) {
  const why = [reason ?? "the server is away, or refuses this name or token", code && `(${code})`].filter(Boolean).join(" ");
  at("sign-in-error").textContent = `Not connected: ${why}.`;
  at("sign-in-error").hidden = false;
  showState({ state: "offline" });
  at("name").focus();
}

function begin() {
  document.title = `${user} – Signalbox chat`;
  at("sign-in").hidden = true;
  at("chat").hidden = false;
  at("leave").hidden = false;
  at("plugins").open = matchMedia("(min-width: 961px)").matches || debug !== undefined;
  at("present").open = matchMedia("(min-width: 641px)").matches;
  watchPlugins(swapped);
  show();
  at("with").focus();
}

function showState({ state, reason, retryInMs = 0 }) {
  const because = reason ? `: ${reason}` : "";
  const texts = {
    offline: "Not connected",
    connecting: "Connecting …",
    connected: `Connected as ${user}`,
    disconnected: `Connection lost${because}; trying again in ${(retryInMs / 1000).toFixed(1)} s`,
    closed: `Disconnected${because}`,
  };
  at("state").dataset.state = at("chat").dataset.state = state;
  at("state-text").textContent = texts[state];
  at("connect").hidden = user === "" || !["disconnected", "closed"].includes(state);
  allowSending();
}

/** Without a connection, messages wait for the next one. */
function allowSending() {
  at("send").disabled = at("text").disabled = !current || client.state === "closed";
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

function open(key) {
  const conversation = talk(key);
  current = key;
  conversation.unread = 0;
  if (!conversation.room && key.startsWith("#")) {
    join(key, conversation);
  }
  show();
  allowSending();
  at("text").focus();
}

function join(key, conversation) {
  const room = client.join(key.slice(1), { last: LAST, presence: true });
  conversation.room = room;
  let isMember = false;
  room.joined.then(
    () => {
      isMember = true;
      add(key, { notice: "You are a member of this room" });
    },
    // `left` follows.
    () => {},
  );
  room.on("presence", showPresence);
  room.on("recovered", (recovery) => returned([key], recovery));
  room.on("left", (error) => {
    conversation.room = undefined;
    add(key, { notice: isMember ? `You are not a member any more: ${refusal(error)}` : refusal(error) });
    showPresence();
  });
}

function talk(key) {
  if (!conversations.has(key)) {
    // `offset` is that of the last message from the room's history, and `held` has messages that wait for older ones.
    const conversation = { items: [], unread: 0, typing: undefined, room: undefined, asking: new Set(), offset: 0, reads: 0, held: [] };
    conversations.set(key, conversation);
  }
  return conversations.get(key);
}

function add(key, item) {
  const conversation = talk(key);
  const { items } = conversation;
  // Messages that wait for a connection stay the last ones.
  const place = item.waits ? items.length : items.findLastIndex(({ waits }) => !waits) + 1;
  items.splice(place, 0, item);
  if (key === current) {
    messages.querySelector(".empty")?.remove();
    messages.insertBefore(drawn(item), items[place + 1]?.drawn ?? null);
    messages.scrollTop = messages.scrollHeight;
  } else if (!item.quiet) {
    conversation.unread += 1;
  }
  if (items.length > MESSAGES_MAX) {
    items.shift();
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
  showPresence();
  showTyping();
}

function showPresence() {
  const room = current && talk(current).room;
  at("present").hidden = !showPresent(room, at("present-total"), at("present-list"), user);
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
  if (current && at("text").value && client.state === "connected" && now - saidTyping > TYPING_EVERY_MS) {
    saidTyping = now;
    // Nobody misses it if it fails.
    client.send("chat.typing", { typing: true }, to(current)).catch(() => {});
  }
});

function to(key) {
  return key.startsWith("#") ? { room: key.slice(1) } : { to: key.slice(1) };
}

/** Sends a message, which the server handles once, also if the connection is lost before its answer. */
async function say(key, text) {
  const isMe = text.startsWith("/me ");
  const isConnected = client.state === "connected";
  const item = { who: user, text: isMe ? `* ${user} ${text.slice(4)}` : text, own: true, me: isMe };
  item.waits = !isConnected;
  item.fate = isConnected ? "sending …" : "waits for a connection …";
  // Whether the room may still echo it, under an ID that no `ack` named.
  item.awaitsEcho = isMe;
  add(key, item);
  const began = performance.now();
  const [type, payload] = isMe ? ["chat.me", text.slice(4)] : ["chat_message", text];
  const asked = client.send(type, payload, { ...to(key), once: true });
  const settled = asked.then((answer) => accept(item, answer, isConnected && performance.now() - began), (error) => fail(item, error));
  const { asking } = talk(key);
  asking.add(settled);
  await settled;
  asking.delete(settled);
  item.waits = false;
  redraw(item);
}

function accept(item, answer, ms) {
  item.id = answer.messageId;
  item.fate = fateOf(answer, ms);
  if (ms) {
    at("latency").textContent = `${ms.toFixed(1)} ms`;
  }
  debug?.answered(answer);
}

function fail(item, error) {
  item.refused = true;
  item.awaitsEcho ||= UNCERTAIN.includes(error.code);
  item.fate = refusal(error);
}

/** Takes a message to this user or to a room. */
function take(message) {
  const { type, senderId, room, offset } = message;
  if (!senderId && !room) {
    // From the platform.
    return;
  }
  const key = room ? `#${room}` : `@${senderId}`;
  const conversation = talk(key);
  if (room && offset !== undefined) {
    if (conversation.reads > 0) {
      conversation.held.push(message);
      return;
    }
    if (offset <= conversation.offset) {
      return;
    }
    conversation.offset = offset;
  }
  if (type === "chat.typing") {
    const isOld = Date.now() - Date.parse(message.timestamp) > TYPING_OLD_MS;
    if (senderId !== user && !isOld) typing(key, senderId);
  } else if (room && senderId === user) {
    takeOwn(key, message);
  } else {
    receive(key, message);
  }
}

/** Rooms echo the user's own messages. Those of this page are already shown; others come from elsewhere, or from the history. */
async function takeOwn(key, message) {
  const { asking, items } = talk(key);
  if (asking.size > 0) {
    // Their answers tell which messages are of this page.
    await Promise.all(asking);
  }
  const { messageId } = message;
  const text = textOf(message.payload);
  const isSame = (item) => (messageId && item.id === messageId) || (item.awaitsEcho && item.text === text);
  const shown = items.find((item) => item.own && isSame(item));
  if (!shown) {
    receive(key, message);
  } else if (shown.refused) {
    shown.refused = false;
    shown.fate = "delivered";
    redraw(shown);
  }
  if (shown) {
    shown.awaitsEcho = false;
  }
}

function receive(key, { type, payload, senderId, timestamp }) {
  const own = senderId === user;
  const label = type === "chat_message" ? senderId : `${senderId} (${type})`;
  talk(key).typing = undefined;
  add(key, { who: label, text: textOf(payload), me: payload?.me === true, at: timestamp, own, quiet: own });
  showTyping();
}

/** Conversations continue after a reconnect. */
function returned(keys, recovery) {
  debug?.recovered(recovery);
  if (!recovery.recovered) {
    keys.forEach((key) => missed(key, recovery.reason));
  }
}

/** Shows that messages are missing. Of a room, the last ones that the server has follow. */
async function missed(key, reason) {
  const why = key.startsWith("#") ? `: ${GAPS[reason] ?? GAPS.expired}` : "";
  add(key, { notice: `Messages may be missing here${why}.`, gap: true });
  const conversation = talk(key);
  if (!conversation.room) {
    return;
  }
  if (reason === "epoch") {
    conversation.offset = 0;
  }
  conversation.reads += 1;
  // If it fails, the line above is all that the page can say.
  const { messages: last } = await conversation.room.history({ limit: LAST }).catch(() => ({ messages: [] }));
  conversation.reads -= 1;
  conversation.held.push(...last);
  if (conversation.reads === 0) {
    conversation.held.splice(0).sort((a, b) => a.offset - b.offset).forEach(take);
  }
}

function typing(key, who) {
  const conversation = talk(key);
  clearTimeout(conversation.typing?.timer);
  const timer = setTimeout(() => {
    conversation.typing = undefined;
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
