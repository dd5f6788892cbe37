/** A secret that is shown once, with a button that copies it. */
import { Copy } from "lucide-react";
import { useState } from "react";
import { useWords } from "../i18n";
import { Button } from "./parts";

export function Secret({ label, text, hint }: { label: string; text: string; hint: string }) {
  const words = useWords();
  const [copied, setCopied] = useState(false);
  const copy = () => {
    navigator.clipboard.writeText(text).then(
      () => setCopied(true),
      () => setCopied(false), // the field can be selected
    );
  };
  return (
    <div className="secret" role="status">
      <label>
        {label}
        <input readOnly value={text} data-testid="secret" onFocus={(event) => event.target.select()} />
      </label>
      <Button onClick={copy}>
        <Copy size={14} aria-hidden="true" /> {words(copied ? "copied" : "copy")}
      </Button>
      <p className="dim small">{hint}</p>
    </div>
  );
}
