import { useState, type FormEvent } from "react";

export function SignIn({ enter }: { enter: (name: string) => void }) {
  const [name, setName] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (name.trim()) enter(name.trim());
  };
  return (
    <main className="sign-in">
      <form className="card" onSubmit={submit}>
        <img src="/icon.svg" alt="" width="44" height="44" />
        <h1>Signalbox chat</h1>
        <p>Open this page twice, as two people, and meet in #lobby.</p>
        <label>
          Your name
          <input
            value={name}
            onChange={(event) => setName(event.target.value)}
            maxLength={64}
            autoComplete="nickname"
            autoCapitalize="none"
            spellCheck={false}
            autoFocus
            required
          />
        </label>
        <button>Join</button>
      </form>
    </main>
  );
}
