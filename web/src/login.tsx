/** Log in with name and password, or with the one-time token that `wetread serve` prints. */
import { type FormEvent, useState } from "react";
import { useLogIn, useLogInWays } from "./api/queries";
import { useWords } from "./i18n";
import { Button, Problem } from "./ui/parts";
import { Wordmark } from "./ui/wordmark";

export function LogIn() {
  const words = useWords();
  const logIn = useLogIn();
  const provider = useLogInWays().data?.openid;
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [token, setToken] = useState("");
  const send = (event: FormEvent, given: { name: string; password: string } | { token: string }) => {
    event.preventDefault();
    logIn.mutate(given);
  };
  return (
    <main className="log-in">
      <div className="log-in-card">
        <h1>
          <Wordmark />
        </h1>
        <p className="dim">{words("researchUse")}</p>
        {logIn.isError && <Problem error={logIn.error} />}
        {provider && (
          <>
            <a className="button main" href="/login/openid">
              {words("logInWith", { provider })}
            </a>
            <div className="or">{words("or")}</div>
          </>
        )}
        <form onSubmit={(event) => send(event, { name, password })}>
          <label>
            {words("userName")}
            <input autoComplete="username" required value={name} onChange={(e) => setName(e.target.value)} />
          </label>
          <label>
            {words("password")}
            <input
              type="password"
              autoComplete="current-password"
              required
              value={password}
              onChange={(e) => setPassword(e.target.value)}
            />
          </label>
          <Button kind={provider ? "plain" : "main"} type="submit" disabled={logIn.isPending}>
            {words("logIn")}
          </Button>
        </form>
        <div className="or">{words("or")}</div>
        <form onSubmit={(event) => send(event, { token: tokenOf(token) })}>
          <label>
            {words("oneTimeToken")}
            <input
              autoComplete="off"
              spellCheck={false}
              required
              value={token}
              onChange={(e) => setToken(e.target.value)}
            />
          </label>
          <p className="dim small">{words("oneTimeTokenHint")}</p>
          <Button type="submit" disabled={logIn.isPending}>
            {words("logInOnce")}
          </Button>
        </form>
      </div>
    </main>
  );
}

/** People paste the whole address that was printed. */
function tokenOf(text: string): string {
  return text.match(/[?&]token=([^&\s]+)/)?.[1] ?? text.trim();
}
