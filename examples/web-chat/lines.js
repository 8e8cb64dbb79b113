// The lines of a conversation: messages with their outcome, and notices.

import { element, time } from "./plugins.js";

/** Draws a line. */
export function drawn(item) {
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

/** Draws a line again that has changed, if it is shown. */
export function redraw(item) {
  item.drawn?.replaceWith(drawn(item));
}

/** The text of a payload, also of one that another application sent. */
export function textOf(payload) {
  const text = typeof payload === "string" ? payload : payload?.text;
  return typeof text === "string" ? text : (JSON.stringify(payload) ?? "");
}

/** The outcome of a message that the server accepted, after `ms` if that was measured. */
export function fateOf({ status, plugins = [] }, ms) {
  const parts = [status === "offline" ? "nobody of that name is connected" : status];
  if (ms) {
    parts.push(`${ms.toFixed(1)} ms`);
  }
  for (const { name, version, sha256 } of plugins) {
    parts.push([name, version, sha256].filter(Boolean).join(" "));
  }
  return parts.join(" · ");
}

/** The text of an error. */
export function refusal({ code, message, plugin }) {
  return `${message} (${code}${plugin ? `, plugin ${plugin}` : ""})`;
}
