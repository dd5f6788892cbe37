/** A person's own tokens for programs: made with scopes and an end, shown once, revoked. */
import { type FormEvent, useState } from "react";
import type { Session, Token } from "../api/client";
import { useMakeToken, useRevokeToken, useTokens } from "../api/queries";
import { moment, type TextKey, useWords } from "../i18n";
import { useNow } from "../ui/now";
import { Badge, Button, Empty, Problem, Section, Spinner } from "../ui/parts";
import { Secret } from "../ui/secret";

type Scope = Token["scopes"][number];
const SCOPES: [Scope, TextKey][] = [
  ["read", "scopeRead"],
  ["write", "scopeWrite"],
  ["admin", "scopeAdmin"],
];
const LIVES = [1, 30, 90, 365];

export default function Tokens({ session }: { session: Session }) {
  const words = useWords();
  const tokens = useTokens();
  return (
    <div className="page">
      <header className="page-head">
        <h1>{words("yourTokens")}</h1>
      </header>
      <p className="dim small">{words("tokensHint")}</p>
      <Make session={session} />
      {tokens.isPending && <Spinner label={words("loading")} />}
      {tokens.isError && <Problem error={tokens.error} onRetry={() => tokens.refetch()} />}
      {tokens.data?.length === 0 && <Empty title={words("noTokens")} />}
      {tokens.data && tokens.data.length > 0 && <Table tokens={[...tokens.data].reverse()} />}
    </div>
  );
}

function Make({ session }: { session: Session }) {
  const words = useWords();
  const make = useMakeToken();
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<Scope[]>(["read"]);
  const [days, setDays] = useState(30);
  const send = (event: FormEvent) => {
    event.preventDefault();
    make.mutate({ name, scopes, days }, { onSuccess: () => setName("") });
  };
  const toggle = (scope: Scope) =>
    setScopes(scopes.includes(scope) ? scopes.filter((one) => one !== scope) : [...scopes, scope]);
  const offered = SCOPES.filter(([scope]) => scope !== "admin" || session.role === "admin");
  return (
    <Section title={words("newToken")}>
      <form className="form-line" onSubmit={send}>
        <label>
          {words("tokenName")}
          <input
            required
            maxLength={64}
            autoComplete="off"
            value={name}
            onChange={(e) => setName(e.target.value)}
          />
        </label>
        <fieldset className="checks">
          <legend>{words("scopes")}</legend>
          {offered.map(([scope, label]) => (
            <label key={scope}>
              <input type="checkbox" checked={scopes.includes(scope)} onChange={() => toggle(scope)} />
              {words(label)}
            </label>
          ))}
        </fieldset>
        <label>
          {words("endsAfter")}
          <select value={days} onChange={(e) => setDays(Number(e.target.value))}>
            {LIVES.map((one) => (
              <option key={one} value={one}>
                {words(one === 1 ? "oneDay" : "someDays", { n: one })}
              </option>
            ))}
          </select>
        </label>
        <Button kind="main" type="submit" disabled={make.isPending || scopes.length === 0}>
          {words("makeToken")}
        </Button>
      </form>
      {make.isError && <Problem error={make.error} />}
      {make.data && <Secret label={make.data.name} text={make.data.secret} hint={words("secretShownOnce")} />}
    </Section>
  );
}

function Table({ tokens }: { tokens: readonly Token[] }) {
  const words = useWords();
  const revoke = useRevokeToken();
  const now = useNow();
  return (
    <>
      {revoke.isError && <Problem error={revoke.error} />}
      <table className="plain-table">
        <thead>
          <tr>
            <th scope="col">{words("tokenName")}</th>
            <th scope="col">{words("scopes")}</th>
            <th scope="col">{words("status")}</th>
            <th scope="col">{words("since")}</th>
            <th scope="col">{words("ends")}</th>
            <th scope="col">
              <span className="hidden">{words("actions")}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {tokens.map((one) => (
            <tr key={one.id} data-testid="token">
              <th scope="row">{one.name}</th>
              <td>{one.scopes.join(", ")}</td>
              <td>
                <State token={one} now={now} />
              </td>
              <td className="num">{moment(one.created, words.language)}</td>
              <td className="num">{moment(one.expires, words.language)}</td>
              <td className="number">
                {!one.revoked && one.expires > now && (
                  <Button
                    kind="quiet"
                    aria-label={words("revokeToken", { name: one.name })}
                    disabled={revoke.isPending}
                    onClick={() => revoke.mutate(one.id)}
                  >
                    {words("revoke")}
                  </Button>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function State({ token, now }: { token: Token; now: number }) {
  const words = useWords();
  if (token.revoked) return <Badge tone="fail">{words("revoked")}</Badge>;
  if (token.expires <= now) return <Badge>{words("expired")}</Badge>;
  return <Badge tone="pass">{words("active")}</Badge>;
}
