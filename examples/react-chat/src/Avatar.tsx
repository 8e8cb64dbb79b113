/** A disc with the first letter of a name, in a colour that follows from the name. */
export function Avatar({ name }: { name: string }) {
  const hue = [...name].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0) * 137) % 360, 7);
  return (
    <span className="avatar" style={{ "--hue": hue } as React.CSSProperties} aria-hidden="true">
      {([...name][0] ?? "?").toUpperCase()}
    </span>
  );
}
