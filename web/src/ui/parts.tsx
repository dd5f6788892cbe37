/** The small parts that all pages are made of. */
import { X } from "lucide-react";
import { type ButtonHTMLAttributes, type ReactNode, useEffect, useId, useRef } from "react";
import { Refused } from "../api/client";
import { useWords } from "../i18n";

export function Button({
  kind = "plain",
  children,
  className = "",
  ...rest
}: ButtonHTMLAttributes<HTMLButtonElement> & { kind?: "plain" | "main" | "quiet" | "danger" }) {
  return (
    <button type="button" className={`button ${kind} ${className}`} {...rest}>
      {children}
    </button>
  );
}

export function IconButton({
  label,
  pressed,
  shortcut,
  children,
  ...rest
}: ButtonHTMLAttributes<HTMLButtonElement> & { label: string; pressed?: boolean; shortcut?: string }) {
  const title = shortcut ? `${label} (${shortcut})` : label;
  const state = pressed === undefined ? {} : { "aria-pressed": pressed };
  return (
    <button type="button" className="icon-button" aria-label={label} title={title} {...state} {...rest}>
      {children}
    </button>
  );
}

export type Tone = "plain" | "positive" | "negative" | "withheld" | "accent" | "fail" | "warn" | "pass";

export function Badge({ tone = "plain", children }: { tone?: Tone; children: ReactNode }) {
  return <span className={`badge ${tone}`}>{children}</span>;
}

/** The answer of a reader, in words and in a tone; never in colour alone. */
export function Decision({ decision }: { decision: string | null }) {
  const words = useWords();
  if (decision === "positive") return <Badge tone="positive">{words("positive")}</Badge>;
  if (decision === "negative") return <Badge tone="negative">{words("negative")}</Badge>;
  if (decision === "withheld") return <Badge tone="withheld">{words("withheld")}</Badge>;
  return null;
}

export function Spinner({ label }: { label: string }) {
  return (
    <span className="spinner" role="status">
      <span className="spinner-ring" aria-hidden="true" />
      <span>{label}</span>
    </span>
  );
}

export function Problem({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const words = useWords();
  const told = error instanceof Refused ? error : null;
  return (
    <div className="problem" role="alert">
      <strong>{told?.message ?? words("unexpected")}</strong>
      {told?.hint && <span>{told.hint}</span>}
      {onRetry && <Button onClick={onRetry}>{words("tryAgain")}</Button>}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children}
    </div>
  );
}

export function Section({
  title,
  aside,
  children,
}: {
  title: string;
  aside?: ReactNode;
  children: ReactNode;
}) {
  const id = useId();
  return (
    <section className="section" aria-labelledby={id}>
      <header className="section-head">
        <h2 id={id}>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  );
}

export function Switch({
  on,
  label,
  onChange,
}: {
  on: boolean;
  label: string;
  onChange: (on: boolean) => void;
}) {
  return (
    <button type="button" role="switch" aria-checked={on} className="switch" onClick={() => onChange(!on)}>
      <span className="switch-track" aria-hidden="true" />
      <span>{label}</span>
    </button>
  );
}

/** A modal dialogue; Escape and the button close it, and the focus comes back by itself. */
export function Dialog({
  title,
  onClose,
  children,
}: {
  title: string;
  onClose: () => void;
  children: ReactNode;
}) {
  const words = useWords();
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    element.current?.showModal();
  }, []);
  return (
    <dialog ref={element} className="dialog" aria-labelledby={id} onClose={onClose}>
      <header className="dialog-head">
        <h2 id={id}>{title}</h2>
        <IconButton label={words("close")} onClick={onClose}>
          <X size={16} />
        </IconButton>
      </header>
      {children}
    </dialog>
  );
}

export function Keys({ children }: { children: string }) {
  return <kbd>{children}</kbd>;
}
