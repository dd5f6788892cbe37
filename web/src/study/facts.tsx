/** Phrases with the recorded facts that they are made of; a fact leads to its image. */
import type { Fact, Phrase } from "../api/client";
import { useWords } from "../i18n";
import { readOf, type Stage } from "./stage";

export function Phrases({
  phrases,
  facts,
  stage,
}: {
  phrases: readonly Phrase[];
  facts: readonly Fact[];
  stage: Stage;
}) {
  const known = new Map(facts.map((one) => [one.id, one]));
  return (
    <ul className="phrases">
      {phrases.map((phrase, number) => (
        // phrases have no other name, and are never reordered
        <li key={number}>
          <span>{phrase.text}</span>
          {phrase.facts.map((id) => (
            <FactLink key={id} id={id} fact={known.get(id)} stage={stage} />
          ))}
        </li>
      ))}
    </ul>
  );
}

function FactLink({ id, fact, stage }: { id: string; fact: Fact | undefined; stage: Stage }) {
  const words = useWords();
  if (!fact) return <span className="fact">{id}</span>;
  return (
    <button
      type="button"
      className="fact num"
      title={fact.text}
      aria-label={words("showFact", { id, kind: fact.kind })}
      onClick={() => showFact(fact, stage)}
    >
      {id}
    </button>
  );
}

/** Move the viewer to what a fact is about. */
export function showFact(fact: Fact, stage: Stage): void {
  const number = Number(fact.image.replace(/\D+/g, ""));
  const image = stage.study.image_list.find((one) => one.number === number);
  if (!image) return;
  stage.goToImage(number);
  if (!["finding", "evidence"].includes(fact.kind)) {
    if (["organ", "measure"].includes(fact.kind)) stage.setMasks(true);
    return;
  }
  const read = image.results.filter((one) => one.kind === "read").at(-1);
  const reading = read && readOf(read).labels.find((one) => one.label === fact.label);
  if (read && reading && read.pictures.includes(`heat:${fact.label}`)) {
    stage.showEvidence(read.id, fact.label, (reading.evidence?.boxes.length ?? 0) > 0 ? 0 : undefined);
  }
}
