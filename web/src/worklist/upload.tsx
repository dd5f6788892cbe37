/** Upload by button or by dropping files anywhere on the worklist; what was refused is said file by file. */
import { useQueryClient } from "@tanstack/react-query";
import { Upload as UploadIcon, X } from "lucide-react";
import { type DragEvent, type ReactNode, useRef, useState } from "react";
import type { Upload } from "../api/client";
import { upload } from "../api/upload";
import { percent, useWords } from "../i18n";
import { go, studyPath } from "../router";
import { Button, IconButton, Problem } from "../ui/parts";

interface State {
  share: number | null;
  done: Upload | null;
  error: unknown;
}

const IDLE: State = { share: null, done: null, error: null };

export interface Uploads {
  choose: () => void;
  drop: Record<string, (event: DragEvent) => void>;
  dragging: boolean;
  busy: boolean;
  input: ReactNode;
  panel: ReactNode;
}

export function useUploads(): Uploads {
  const words = useWords();
  const client = useQueryClient();
  const input = useRef<HTMLInputElement>(null);
  const [state, setState] = useState<State>(IDLE);
  const [dragging, setDragging] = useState(false);
  const send = async (files: readonly File[]) => {
    if (files.length === 0) return;
    setState({ ...IDLE, share: 0 });
    try {
      const done = await upload(files, (share) => setState({ ...IDLE, share }));
      setState({ ...IDLE, done });
      await client.invalidateQueries({ queryKey: ["worklist"] });
    } catch (error) {
      setState({ ...IDLE, error });
    }
  };
  const drop = {
    onDragOver: (event: DragEvent) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      setDragging(true);
    },
    onDragLeave: (event: DragEvent) => {
      if (!event.currentTarget.contains(event.relatedTarget as Node | null)) setDragging(false);
    },
    onDrop: (event: DragEvent) => {
      event.preventDefault();
      setDragging(false);
      void send([...event.dataTransfer.files]);
    },
  };
  return {
    choose: () => input.current?.click(),
    drop,
    dragging,
    busy: state.share !== null,
    input: (
      <input
        ref={input}
        type="file"
        multiple
        hidden
        data-testid="files"
        aria-label={words("uploadImages")}
        onChange={(event) => {
          void send([...(event.target.files ?? [])]);
          event.target.value = "";
        }}
      />
    ),
    panel: <UploadPanel state={state} onClose={() => setState(IDLE)} />,
  };
}

export function UploadButton({ uploads }: { uploads: Uploads }) {
  const words = useWords();
  return (
    <>
      {uploads.input}
      <Button kind="main" onClick={uploads.choose} disabled={uploads.busy}>
        <UploadIcon size={15} aria-hidden="true" /> {words("upload")}
      </Button>
    </>
  );
}

function UploadPanel({ state, onClose }: { state: State; onClose: () => void }) {
  const words = useWords();
  if (state.error !== null) return <Problem error={state.error} />;
  if (state.share !== null) {
    const label = state.share < 1 ? words("uploading") : words("checking");
    return (
      <div className="upload-panel" role="status">
        <span>{label}</span>
        <progress max={1} value={state.share} aria-label={label} />
        <span className="num">{percent(state.share, words.language)}</span>
      </div>
    );
  }
  if (state.done === null) return null;
  const { studies, refused } = state.done;
  const added = studies.reduce((sum, one) => sum + one.added, 0);
  const known = studies.reduce((sum, one) => sum + one.known, 0);
  const first = studies[0];
  return (
    <div className="upload-panel" role="status">
      <span>{words("uploaded", { images: added, studies: studies.length })}</span>
      {known > 0 && <span className="dim">{words("alreadyKnown", { n: known })}</span>}
      {first && <Button onClick={() => go(studyPath(first.id))}>{words("open")}</Button>}
      {refused.length > 0 && (
        <ul className="refused">
          {refused.map((one) => (
            <li key={one.number}>
              <strong>{words("fileNumber", { n: one.number })}</strong> {one.message}
            </li>
          ))}
        </ul>
      )}
      <IconButton label={words("close")} onClick={onClose}>
        <X size={15} />
      </IconButton>
    </div>
  );
}
