/** Lengths and angles that people drew, organ masks and the sizes that come from them. */
import { Trash2 } from "lucide-react";
import type { Session } from "../api/client";
import { useAnnotate, useAnnotations, useAsk } from "../api/queries";
import type { Measure } from "../api/records";
import { fixed, percent, useWords } from "../i18n";
import { Button, IconButton, Problem, Section } from "../ui/parts";
import { valueOf } from "../viewer/marks";
import { latest, organsOf, readOf, type Stage } from "./stage";

export function Measurements({
  stage,
  session,
  onAsked,
}: {
  stage: Stage;
  session: Session;
  onAsked: () => void;
}) {
  const words = useWords();
  const image = stage.image?.id ?? "";
  const annotations = useAnnotations(image).data ?? [];
  const { remove } = useAnnotate(image);
  const ask = useAsk(image, onAsked);
  const organs = latest(stage.image, "segment");
  const read = latest(stage.image, "read");
  // a guided reader measures the organ that it was shown; masks that were asked for say more
  const measures = organs ? organsOf(organs).measures : read ? readOf(read).measures : [];
  return (
    <Section
      title={words("measurements")}
      aside={
        organs ? (
          <Button kind="quiet" aria-pressed={stage.masks} onClick={() => stage.setMasks(!stage.masks)}>
            {words(stage.masks ? "hideMasks" : "showMasks")}
          </Button>
        ) : (
          <Button kind="quiet" disabled={ask.isPending} onClick={() => ask.mutate({ kind: "masks" })}>
            {words("askMasks")}
          </Button>
        )
      }
    >
      {ask.isError && <Problem error={ask.error} />}
      <table className="measures">
        <tbody>
          {organs &&
            organsOf(organs).organs.map((one) => (
              <tr key={one.organ}>
                <th scope="row">{one.organ.replaceAll("_", " ")}</th>
                <td className="num">{percent(one.image_share, words.language, 1)}</td>
                <td className="dim small">{one.flags.join(", ") || words("ofImage")}</td>
              </tr>
            ))}
          {measures.map((one) => (
            <tr key={`${one.name} ${one.organ}`}>
              <th scope="row">{`${one.organ}, ${one.name}`.replaceAll("_", " ")}</th>
              <td className="num">{sizeOf(one, words.language)}</td>
              <td className="dim small">{one.reason}</td>
            </tr>
          ))}
          {annotations.map((one) => (
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
          ))}
        </tbody>
      </table>
      {annotations.length === 0 && measures.length === 0 && (
        <p className="dim small">{words("noMeasurements")}</p>
      )}
    </Section>
  );
}

function sizeOf(one: Measure, language: "en" | "es"): string {
  if (one.value === null) return "–";
  return `${fixed(one.value, 2, language)}${one.unit === "1" ? "" : ` ${one.unit.replace("cm2", "cm²")}`}`;
}
