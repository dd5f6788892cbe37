/** Phrases with the recorded facts that they are made of; a fact leads to its image. */
import type { Fact, Phrase, StudyImage } from "../api/client";
import { useWords } from "../i18n";
import { latest, readOf, type Stage } from "./stage";

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
  const [number, frame] = (fact.image.match(/\d+/g) ?? []).map(Number); // "image 2, frame 5"
  const image = stage.places.find(
    (one) => one.file.number === number && (frame === undefined || one.frame === frame),
  )?.image;
  if (!image || number === undefined) return;
  stage.goToImage(number, frame);
  if (["organ", "measure"].includes(fact.kind)) stage.setMasks(true);
  if (["finding", "evidence"].includes(fact.kind)) showHeat(fact.label, image, stage);
}

function showHeat(label: string, image: StudyImage, stage: Stage): void {
  const read = latest(image, "read");
  const reading = read && readOf(read).labels.find((one) => one.label === label);
  if (!read || !reading || !read.pictures.includes(`heat:${label}`)) return;
  stage.showEvidence(read.id, label, (reading.evidence?.boxes.length ?? 0) > 0 ? 0 : undefined);
}
