/** A user in a room. */
export interface Member {
  readonly userId: string;
  /** The user's connections in the room when this was reported; a change of their number alone is not reported. */
  readonly connections: number;
  /** The claim `info` of the user's token. */
  readonly info?: unknown;
}

/** The payload of a `presence` frame. */
export interface PresenceFrame {
  readonly room: string;
  readonly total: number;
  readonly members?: readonly Member[];
  readonly joined?: readonly Member[];
  readonly left?: readonly string[];
}

/** A change of who is in a room. */
export interface Presence {
  /** The number of users. */
  readonly total: number;
  /** All users, in the order in which they came; `undefined` if there are too many to list. */
  readonly members: readonly Member[] | undefined;
  /** The users who came; empty for a new list. */
  readonly joined: readonly Member[];
  /** The IDs of the users who left; empty for a new list. */
  readonly left: readonly string[];
}

/** The users in a room, merged from frames. */
export class PresenceList {
  #members: Map<string, Member> | undefined;
  #total: number | undefined;

  get total(): number | undefined {
    return this.#total;
  }

  get members(): readonly Member[] | undefined {
    return this.#members && [...this.#members.values()];
  }

  /** Merges a frame. */
  apply({ total, members, joined, left }: PresenceFrame): Presence {
    this.#total = total;
    if (members) {
      this.#members = new Map(members.map((member) => [member.userId, member]));
    } else if (joined || left) {
      for (const user of left ?? []) this.#members?.delete(user);
      for (const member of joined ?? []) this.#members?.set(member.userId, member);
    } else {
      this.#members = undefined;
    }
    return { total, members: this.members, joined: joined ?? [], left: left ?? [] };
  }
}
