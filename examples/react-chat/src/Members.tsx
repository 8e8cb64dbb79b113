import type { Member } from "@signalbox/client";
import { Avatar } from "./Avatar.js";

interface Props {
  members: readonly Member[] | undefined;
  total: number | undefined;
  user: string;
}

/** Who is in the room: a column, and on a phone a line that opens. */
export function Members({ members, total, user }: Props) {
  if (total === undefined) return <aside className="members" aria-label="Members" />;
  const sorted = [...(members ?? [])].sort((a, b) => a.userId.localeCompare(b.userId));
  return (
    <aside className="members" aria-label="Members">
      <details open={matchMedia("(min-width: 60rem)").matches}>
        <summary>{total.toLocaleString()} here</summary>
        {members ? (
          <ul tabIndex={0} aria-label="Members">
            {sorted.map(({ userId }) => (
              <li key={userId}>
                <Avatar name={userId} />
                <span className="name">{userId}</span>
                {userId === user && <small>you</small>}
              </li>
            ))}
          </ul>
        ) : (
          <p className="soft">Too many to list.</p>
        )}
      </details>
    </aside>
  );
}
