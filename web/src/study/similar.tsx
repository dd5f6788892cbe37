/** Past cases that look like this one, each with its outcome; one of them can stand beside the image. */
import { useAsk, pictureAddress } from "../api/queries";
import { fixed, useWords } from "../i18n";
import { Button, Problem, Section } from "../ui/parts";
import { latest, similarOf, type Stage } from "./stage";

export function Similar({ stage, onAsked }: { stage: Stage; onAsked: () => void }) {
  const words = useWords();
  const ask = useAsk(stage.image?.id ?? "", onAsked);
  const result = latest(stage.image, "similar");
  if (!result) {
    return (
      <Section
        title={words("similarCases")}
        aside={
          <Button kind="quiet" disabled={ask.isPending} onClick={() => ask.mutate({ kind: "similar" })}>
            {words("lookForThem")}
          </Button>
        }
      >
        {ask.isError ? <Problem error={ask.error} /> : <p className="dim small">{words("similarHint")}</p>}
      </Section>
    );
  }
  const { neighbours, vote } = similarOf(result);
  return (
    <Section title={words("similarCases")}>
      <ul className="cases">
        {neighbours.map((one) => {
          const outcome =
            one.labels === null ? words("unknownOutcome") : one.labels.join(" + ") || words("noneOfLabels");
          const on = stage.caseBeside?.result === result.id && stage.caseBeside.rank === one.rank;
          const name = `case:${one.rank}`;
          return (
            <li key={one.rank}>
              <button
                type="button"
                className="case"
                aria-pressed={on}
                title={words("openBeside")}
                onClick={() => stage.setCaseBeside(on ? null : { result: result.id, rank: one.rank })}
              >
                {result.pictures.includes(name) ? (
                  <img src={pictureAddress(result.id, name)} alt="" loading="lazy" />
                ) : (
                  <span className="no-picture">{words("fileGone")}</span>
                )}
                <span className="case-outcome">{outcome}</span>
                <span className="dim num">{fixed(one.distance, 3, words.language)}</span>
              </button>
            </li>
          );
        })}
      </ul>
      {Object.entries(vote).map(([label, one]) => (
        <p key={label} className="small">
          {words("vote", { positive: one.positive, known: one.known, label })}
        </p>
      ))}
    </Section>
  );
}
