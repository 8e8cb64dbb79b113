// The users in a room: a list that `presence` frames keep up to date.

import { element } from "./plugins.js";

/** The users of one room. */
export class Present {
  /** The names; null while only the number is known. */
  #names = null;
  #total = null;

  /** Takes the payload of a `presence` frame. */
  take({ total, members, joined, left }) {
    this.#total = total;
    if (members) {
      this.#names = new Set(members.map(nameOf));
    } else if (!joined && !left) {
      this.#names = null;
    } else if (this.#names) {
      for (const user of left ?? []) this.#names.delete(user);
      for (const user of joined ?? []) this.#names.add(nameOf(user));
    }
  }

  /** Shows the number in `total` and the names in `list`, that of this user as `own`. False if nothing is known. */
  show(total, list, own) {
    if (this.#total === null) {
      return false;
    }
    total.textContent = `${this.#total} here`;
    const names = [...(this.#names ?? [])].sort((a, b) => a.localeCompare(b));
    list.replaceChildren(...names.map((name) => element("li", "", name === own ? `${name} (you)` : name)));
    list.hidden = names.length === 0;
    return true;
  }
}

function nameOf({ userId }) {
  return userId;
}
