/**
 * The picture that the reader was given, in 8 bits and as the file says, until the viewer has the image itself: it is
 * there in a fraction of the time. Nothing can be done to it, and it says so.
 */
import { useWords } from "../i18n";
import { Spinner } from "../ui/parts";

/** A mark in the browser's own timeline, for the benchmark. */
const FIRST_PICTURE = "wetread-first-picture";

export function Preview({ address, onShown }: { address: string; onShown?: () => void }) {
  const words = useWords();
  const shown = () => {
    if (performance.getEntriesByName(FIRST_PICTURE).length === 0) performance.mark(FIRST_PICTURE);
    // a frame later it is on the screen
    if (onShown) requestAnimationFrame(() => setTimeout(onShown, 0));
  };
  return (
    <div className="preview">
      <img src={address} alt="" data-testid="preview" onLoad={shown} onError={onShown} />
      <span className="preview-note">
        <Spinner label={words("loadingImage")} />
      </span>
    </div>
  );
}
