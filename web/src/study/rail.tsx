/** The images of the study, and other studies of the same patient to put beside it. */
import { Columns2 } from "lucide-react";
import type { Study } from "../api/client";
import { pictureAddress } from "../api/queries";
import { dicomDate, useWords } from "../i18n";
import { go, studyPath } from "../router";
import { Decision } from "../ui/parts";
import { latest, type Stage } from "./stage";

export function Rail({ stage, priors, beside }: { stage: Stage; priors: readonly Study[]; beside: string }) {
  const words = useWords();
  return (
    <nav className="rail" aria-label={words("imagesAndPriors")}>
      <h2>{words("images")}</h2>
      <ol className="thumbnails">
        {stage.study.image_list.map((image, index) => {
          const read = latest(image, "read");
          return (
            <li key={image.id}>
              <button
                type="button"
                className="thumbnail"
                aria-current={index === stage.index || undefined}
                aria-label={words("imageNumber", { n: image.number })}
                onClick={() => stage.setIndex(index)}
              >
                {read?.pictures.includes("film") ? (
                  <img src={pictureAddress(read.id, "film")} alt="" loading="lazy" />
                ) : (
                  <span className="dim">{image.kind}</span>
                )}
                <span className="thumbnail-number num">{image.number}</span>
              </button>
            </li>
          );
        })}
      </ol>
      <h2>{words("priors")}</h2>
      {priors.length === 0 && <p className="dim small">{words("noPriors")}</p>}
      <ul className="priors">
        {priors.map((prior) => (
          <li key={prior.id}>
            <button
              type="button"
              className="prior"
              aria-pressed={beside === prior.id}
              title={words("openBeside")}
              onClick={() => go(studyPath(stage.study.id, beside === prior.id ? "" : prior.id))}
            >
              <Columns2 size={12} aria-hidden="true" />
              <span className="num">{dicomDate(prior.study_date) || words("undated")}</span>
              <Decision decision={prior.decision} />
            </button>
          </li>
        ))}
      </ul>
    </nav>
  );
}
