/** The images of the study, and other studies of the same patient to put beside it. */
import { Columns2 } from "lucide-react";
import type { Study, StudyImage } from "../api/client";
import { pictureAddress } from "../api/queries";
import { dicomDate, interval, useWords } from "../i18n";
import { go, studyPath } from "../router";
import { Decision } from "../ui/parts";
import { latest, type Stage, startOf } from "./stage";

export function Rail({ stage, priors, beside }: { stage: Stage; priors: readonly Study[]; beside: string }) {
  const words = useWords();
  const apart = (prior: Study) => interval(prior.study_date, stage.study.study_date, words);
  return (
    <nav className="rail" aria-label={words("imagesAndPriors")}>
      <h2>{words("images")}</h2>
      <ol className="thumbnails">
        {filesOf(stage).map(({ file, index, film }) => (
          <li key={file.id}>
            <button
              type="button"
              className="thumbnail"
              aria-current={file === stage.place?.file || undefined}
              aria-label={words("imageNumber", { n: file.number })}
              onClick={() => stage.setIndex(index)}
            >
              {film ? (
                <img src={pictureAddress(film, "film")} alt="" loading="lazy" />
              ) : (
                <span className="dim">{file.kind}</span>
              )}
              {file.frames > 1 && (
                <span className="thumbnail-frames num">{words("frames", { n: file.frames })}</span>
              )}
              <span className="thumbnail-number num">{file.number}</span>
            </button>
          </li>
        ))}
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
              {apart(prior) && <span className="dim interval-text">{apart(prior)}</span>}
              <Decision decision={prior.decision} />
            </button>
          </li>
        ))}
      </ul>
    </nav>
  );
}

interface File {
  file: StudyImage;
  /** Where it is first looked at. */
  index: number;
  /** The result that has a small picture of it. */
  film: string | undefined;
}

function filesOf({ places }: Stage): File[] {
  return [...new Set(places.map((one) => one.file))].map((file) => {
    const index = startOf(places, file);
    const read = latest(places[index]?.image, "read");
    return { file, index, film: read?.pictures.includes("film") ? read.id : undefined };
  });
}
