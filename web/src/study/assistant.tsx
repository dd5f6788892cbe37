/** Questions in plain words; every answer is made of recorded facts, which it names. */
import { Send } from "lucide-react";
import { type FormEvent, useEffect, useRef, useState } from "react";
import type { Answer } from "../api/client";
import { useAsk, useQuestion } from "../api/queries";
import { type TextKey, useWords } from "../i18n";
import { go, studyPath } from "../router";
import { Button, Problem } from "../ui/parts";
import { Phrases } from "./facts";
import type { Stage } from "./stage";

const EXAMPLES: TextKey[] = ["askFindings", "askSure", "askWhere", "askLimits", "askSimilar", "askPrior"];

interface Turn {
  question: string;
  answer: Answer;
}

export function Assistant({ stage, onAsked }: { stage: Stage; onAsked: () => void }) {
  const words = useWords();
  const ask = useQuestion(stage.study.id);
  const [turns, setTurns] = useState<Turn[]>([]);
  const [question, setQuestion] = useState("");
  const end = useRef<HTMLDivElement>(null);
  // a new turn scrolls to itself
  useEffect(() => {
    end.current?.scrollIntoView({ block: "nearest" });
  }, [turns.length]);
  const send = (asked: string) => {
    if (asked.trim() === "" || ask.isPending) return;
    ask.mutate(asked, {
      onSuccess: (answer) => {
        setTurns((before) => [...before, { question: asked, answer }]);
        setQuestion("");
      },
    });
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    send(question);
  };
  return (
    <div className="assistant">
      <div className="talk" role="log" aria-label={words("assistant")}>
        <p className="dim small">{words("assistantHint")}</p>
        {turns.map((turn, number) => (
          // turns are only ever added at the end
          <div key={number} className="turn">
            <p className="question">{turn.question}</p>
            <div className="answer" data-testid="answer">
              {turn.answer.phrases.length > 0 ? (
                <Phrases phrases={turn.answer.phrases} facts={turn.answer.facts} stage={stage} />
              ) : (
                <p>{turn.answer.text}</p>
              )}
              {turn.answer.worded_by && (
                <p className="dim small">{words("wordedBy", { name: turn.answer.worded_by })}</p>
              )}
              <Actions answer={turn.answer} stage={stage} onAsked={onAsked} />
            </div>
          </div>
        ))}
        {ask.isError && <Problem error={ask.error} />}
        <div ref={end} />
      </div>
      <div className="examples">
        {EXAMPLES.map((one) => (
          <button key={one} type="button" className="example" onClick={() => send(words(one))}>
            {words(one)}
          </button>
        ))}
      </div>
      <form className="ask" onSubmit={submit}>
        <input
          aria-label={words("yourQuestion")}
          placeholder={words("yourQuestion")}
          maxLength={500}
          value={question}
          onChange={(event) => setQuestion(event.target.value)}
        />
        <Button kind="main" type="submit" aria-label={words("askIt")} disabled={ask.isPending}>
          <Send size={15} aria-hidden="true" />
        </Button>
      </form>
    </div>
  );
}

function Actions({ answer, stage, onAsked }: { answer: Answer; stage: Stage; onAsked: () => void }) {
  const words = useWords();
  const ask = useAsk(stage.image?.id ?? "", onAsked);
  if (answer.actions.length === 0) return null;
  return (
    <div className="row">
      {answer.actions.map((action) => {
        const name = JSON.stringify(action);
        switch (action.do) {
          case "show_heat_map":
            return (
              <Button
                key={name}
                onClick={() => stage.showEvidence(action.result ?? "", action.label ?? "", 0)}
              >
                {words("showOnImage")}
              </Button>
            );
          case "open_beside":
            return (
              <Button key={name} onClick={() => go(studyPath(stage.study.id, action.study))}>
                {words("openBeside")}
              </Button>
            );
          case "show_case":
            return (
              <Button
                key={name}
                onClick={() => stage.setCaseBeside({ result: action.result ?? "", rank: 1 })}
              >
                {words("openBeside")}
              </Button>
            );
          case "ask_similar":
            return (
              <Button key={name} disabled={ask.isPending} onClick={() => ask.mutate({ kind: "similar" })}>
                {words("lookForThem")}
              </Button>
            );
          case "ask_masks":
            return (
              <Button key={name} disabled={ask.isPending} onClick={() => ask.mutate({ kind: "masks" })}>
                {words("askMasks")}
              </Button>
            );
          default:
            return null;
        }
      })}
      {ask.isError && <Problem error={ask.error} />}
    </div>
  );
}
