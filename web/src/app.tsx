/** The frame around every page: who is logged in, where one can go, and what holds everywhere. */
import { useQueryClient } from "@tanstack/react-query";
import { Keyboard, LogOut } from "lucide-react";
import { useEffect, useState } from "react";
import type { Session } from "./api/client";
import { useLogOut, useSession } from "./api/queries";
import { useWords } from "./i18n";
import { useKeys } from "./keys";
import { LogIn } from "./login";
import { AuditLog, FeedbackPage, Jobs, Readers, Study, Tokens, Users } from "./pages";
import { setPreferences, usePreferences } from "./preferences";
import { go, usePlace } from "./router";
import { Boundary } from "./ui/boundary";
import { IconButton, Problem, Spinner, Switch } from "./ui/parts";
import { Shortcuts } from "./ui/shortcuts";
import { Wordmark } from "./ui/wordmark";
import { Worklist } from "./worklist/worklist";

export function App() {
  const words = useWords();
  const session = useSession();
  const client = useQueryClient();
  useEffect(
    () =>
      client.getQueryCache().subscribe((event) => {
        // A log-in that ended while a page was open: show the log-in, keep nothing.
        const status = (event.query.state.error as { status?: number } | null)?.status;
        if (event.type === "updated" && status === 401) client.setQueryData(["session"], null);
      }),
    [client],
  );
  if (session.isPending) return <Spinner label={words("loading")} />;
  if (session.isError) return <Problem error={session.error} onRetry={() => session.refetch()} />;
  return session.data === null ? <LogIn /> : <Frame session={session.data} />;
}

function Frame({ session }: { session: Session }) {
  const words = useWords();
  const place = usePlace();
  const [help, setHelp] = useState(false);
  useKeys({ "?": () => setHelp(true) });
  return (
    <div className="frame">
      <a className="skip" href="#main" onClick={skipToMain}>
        {words("skipToContent")}
      </a>
      <TopBar session={session} page={place.page} onHelp={() => setHelp(true)} />
      <main id="main" className="main" tabIndex={-1}>
        <Boundary
          key={`${place.page} ${place.id}`}
          fallback={(error, again) => <Problem error={error} onRetry={again} />}
        >
          <Page session={session} />
        </Boundary>
      </main>
      {help && <Shortcuts onClose={() => setHelp(false)} />}
    </div>
  );
}

function Page({ session }: { session: Session }) {
  const place = usePlace();
  switch (place.page) {
    case "study":
      return <Study key={place.id} id={place.id} beside={place.beside} session={session} />;
    case "readers":
      return <Readers chosen={place.id} />;
    case "feedback":
      return <FeedbackPage session={session} />;
    case "jobs":
      return <Jobs session={session} />;
    case "users":
      return <Users session={session} />;
    case "tokens":
      return <Tokens session={session} />;
    case "log":
      return <AuditLog />;
    default:
      return <Worklist />;
  }
}

function TopBar({ session, page, onHelp }: { session: Session; page: string; onHelp: () => void }) {
  const words = useWords();
  const { language, hideNames } = usePreferences();
  const logOut = useLogOut();
  const places = [
    ["worklist", "", words("worklist")],
    ["readers", "readers", words("readers")],
    ...(session.role === "reader" ? [] : [["feedback", "feedback", words("feedback")]]),
    ["jobs", "jobs", words("jobs")],
    ...(session.role === "admin"
      ? [
          ["users", "users", words("users")],
          ["log", "log", words("auditLog")],
        ]
      : []),
  ] as [string, string, string][];
  const current = page === "study" ? "worklist" : page;
  return (
    <header className="top-bar">
      <a className="brand" href="#/">
        <Wordmark />
      </a>
      <nav aria-label={words("mainNavigation")}>
        {places.map(([name, path, label]) => (
          <a key={name} href={`#/${path}`} aria-current={current === name ? "page" : undefined}>
            {label}
          </a>
        ))}
      </nav>
      <p className="research-use">{words("researchUse")}</p>
      <Switch
        on={hideNames}
        label={words("hideNames")}
        onChange={(hidden) => setPreferences({ hideNames: hidden })}
      />
      <fieldset className="languages">
        <legend className="hidden">{words("language")}</legend>
        {(["en", "es"] as const).map((one) => (
          <button
            key={one}
            type="button"
            lang={one}
            aria-pressed={language === one}
            onClick={() => setPreferences({ language: one })}
          >
            {one.toUpperCase()}
          </button>
        ))}
      </fieldset>
      <IconButton label={words("keyboardHelp")} shortcut="?" onClick={onHelp}>
        <Keyboard size={16} />
      </IconButton>
      <a
        className="who"
        href="#/tokens"
        title={`${words("yourTokens")} · ${session.role}`}
        aria-current={page === "tokens" ? "page" : undefined}
      >
        {session.name}
      </a>
      <IconButton
        label={words("logOut")}
        onClick={() => {
          logOut.mutate();
          go("");
        }}
      >
        <LogOut size={16} />
      </IconButton>
    </header>
  );
}

function skipToMain(event: React.MouseEvent): void {
  event.preventDefault(); // the hash is the address of the page
  document.getElementById("main")?.focus();
}
