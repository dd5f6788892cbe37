/** Lengths and angles that people drew, organ masks and the sizes that come from them. */
import { Trash2 } from "lucide-react";
import type { Annotation, Session } from "../api/client";
import { useAnnotate, useAnnotations, useAsk } from "../api/queries";
import type { Measure, OrganRecord } from "../api/records";
import { fixed, percent, useWords } from "../i18n";
import { Button, IconButton, Problem, Section } from "../ui/parts";
import { valueOf } from "../viewer/marks";
import { latest, organsOf, readOf, type Stage } from "./stage";

interface Props {
  stage: Stage;
  session: Session;
  onAsked: () => void;
}

export function Measurements({ stage, session, onAsked }: Props) {
  const words = useWords();
  const ask = useAsk(stage.image?.id ?? "", onAsked);
  const drawn = useDrawn(stage);
  const organs = latest(stage.image, "segment");
  const measures = measuresOf(stage);
  return (
    <Section
      title={words("measurements")}
      aside={
        stage.place?.readable && (
          <Button
            kind="quiet"
            aria-pressed={organs ? stage.masks : undefined}
            disabled={ask.isPending}
            onClick={() => (organs ? stage.setMasks(!stage.masks) : ask.mutate({ kind: "masks" }))}
          >
            {words(organs ? (stage.masks ? "hideMasks" : "showMasks") : "askMasks")}
          </Button>
        )
      }
    >
      {ask.isError && <Problem error={ask.error} />}
      <table className="measures">
        <tbody>
          {organs && <Organs record={organsOf(organs)} />}
          {measures.map((one) => (
            <tr key={`${one.name} ${one.organ}`}>
              <th scope="row">{`${one.organ}, ${one.name}`.replaceAll("_", " ")}</th>
              <td className="num">{sizeOf(one, words.language)}</td>
              <td className="dim small">{one.reason}</td>
            </tr>
          ))}
          <Drawn drawn={drawn} stage={stage} session={session} />
        </tbody>
      </table>
      {drawn.length === 0 && measures.length === 0 && <NoMeasures session={session} />}
    </Section>
  );
}

function NoMeasures({ session }: { session: Session }) {
  const words = useWords();
  return (
    <p className="dim small">
      {words(session.role === "reader" ? "measureNeedsAnnotator" : "noMeasurements")}
    </p>
  );
}

/** What people drew on the picture that is shown: it belongs to the file and one of its frames. */
function useDrawn(stage: Stage): Annotation[] {
  const { place } = stage;
  const found = useAnnotations(place?.file.id ?? "").data ?? [];
  return found.filter((one) => one.frame === place?.frame);
}

/** A guided reader measures the organ that it was shown; masks that were asked for say more. */
function measuresOf(stage: Stage): readonly Measure[] {
  const organs = latest(stage.image, "segment");
  if (organs) return organsOf(organs).measures;
  const read = latest(stage.image, "read");
  return read ? readOf(read).measures : [];
}

function Organs({ record }: { record: OrganRecord }) {
  const words = useWords();
  return record.organs.map((one) => (
    <tr key={one.organ}>
      <th scope="row">{one.organ.replaceAll("_", " ")}</th>
      <td className="num">{percent(one.image_share, words.language, 1)}</td>
      <td className="dim small">{one.flags.join(", ") || words("ofImage")}</td>
    </tr>
  ));
}

function Drawn({ drawn, stage, session }: { drawn: Annotation[]; stage: Stage; session: Session }) {
  const words = useWords();
  const { remove } = useAnnotate(stage.place?.file.id ?? "");
  return drawn.map((one) => (
    <tr key={one.id} data-testid="measurement">
      <th scope="row">{one.kind === "angle" ? words("angle") : words("length")}</th>
      <td className="num">{valueOf(one, words.language)}</td>
      <td>
        {(one.mine || session.role === "admin") && (
          <IconButton label={words("remove")} onClick={() => remove.mutate(one.id)}>
            <Trash2 size={13} />
          </IconButton>
        )}
      </td>
    </tr>
  ));
}

function sizeOf(one: Measure, language: "en" | "es"): string {
  if (one.value === null) return "–";
  return `${fixed(one.value, 2, language)}${one.unit === "1" ? "" : ` ${one.unit.replace("cm2", "cm²")}`}`;
}
