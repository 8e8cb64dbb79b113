// The users in a room.

import { element } from "./plugins.js";

/**
 * Shows the number of users in `total` and their names in `list`, that of this user as `own`. Returns false if nothing is known.
 * Above a limit the server counts the users and does not name them.
 */
export function showPresent(room, total, list, own) {
  if (room?.total === undefined) {
    return false;
  }
  total.textContent = `${room.total} here`;
  const names = (room.members ?? []).map(({ userId }) => userId).sort((a, b) => a.localeCompare(b));
  list.replaceChildren(...names.map((name) => element("li", "", name === own ? `${name} (you)` : name)));
  list.hidden = names.length === 0;
  return true;
}
