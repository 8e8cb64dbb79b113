// The panel of plugins: the live versions and recent swaps.

const LOOK_MS = 1_000;
const SWAPS_MAX = 50;

const STATES = {
  probation: "on probation",
  canary: "canary",
  shadow: "shadow",
  rolled_back: "rolled back",
  failed: "refused",
};

/** Keeps the panel up to date, and calls `swapped(name, old, version)` when the live version of a plugin changes. */
export function watchPlugins(swapped) {
  const live = new Map();
  let known = false;
  const look = async () => {
    try {
      const answer = await fetch("plugins.json", { cache: "no-store" });
      if (answer.ok) {
        const { plugins } = await answer.json();
        show(plugins, live);
        for (const plugin of plugins) {
          const old = live.get(plugin.name);
          if (known && old !== plugin.live) {
            note(plugin, old);
            swapped(plugin.name, old, plugin.live);
          }
          live.set(plugin.name, plugin.live);
        }
        known = true;
      }
    } catch {
      // The server is unreachable; the connection state shows that.
    }
    setTimeout(look, LOOK_MS);
  };
  look();
}

function show(plugins, live) {
  const list = document.getElementById("versions");
  if (plugins.length === 0) {
    list.replaceChildren(element("li", "none", "No plugin is configured: messages pass as they are."));
    return;
  }
  list.replaceChildren(...plugins.map((plugin) => card(plugin, live)));
}

function card(plugin, live) {
  const item = element("li", live.has(plugin.name) && live.get(plugin.name) !== plugin.live ? "new" : "");
  const title = element("strong", "", plugin.name);
  title.append(element("span", "version", plugin.live ?? "none live"));
  item.append(title);
  const version = plugin.versions.find(({ version }) => version === plugin.live);
  if (version) {
    const semver = version.semver ? `version ${version.semver}, ` : "";
    item.append(element("small", "", `${semver}since ${time(version.since)}, by ${version.trigger}`));
  }
  for (const other of plugin.versions) {
    const state = STATES[other.state];
    if (state) {
      item.append(element("small", "", `${other.version}: ${state}`));
    }
  }
  return item;
}

function note(plugin, old) {
  const swaps = document.getElementById("swaps");
  const version = plugin.versions.find(({ version }) => version === plugin.live);
  const item = element("li", "");
  item.append(`${plugin.name} `);
  item.append(element("span", "version", `${old ?? "none"} → ${plugin.live ?? "none"}`));
  item.append(element("small", "", version ? `${time(version.since)}, by ${version.trigger}` : time(new Date())));
  swaps.prepend(item);
  while (swaps.children.length > SWAPS_MAX) {
    swaps.lastChild.remove();
  }
}

/** Creates an element. The text is never parsed as markup. */
export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) {
    made.className = className;
  }
  if (text !== undefined) {
    made.textContent = text;
  }
  return made;
}

/** Formats the time of day. */
export function time(when) {
  return new Date(when).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}
