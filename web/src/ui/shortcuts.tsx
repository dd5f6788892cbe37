/** All keys, in one dialogue. */
import { type TextKey, useWords } from "../i18n";
import { Dialog, Keys } from "./parts";

const GROUPS: [TextKey, [string[], TextKey][]][] = [
  [
    "worklist",
    [
      [["j", "↓"], "keyNext"],
      [["k", "↑"], "keyPrevious"],
      [["Enter"], "keyOpen"],
      [["/"], "keySearch"],
      [["u"], "upload"],
    ],
  ],
  [
    "viewer",
    [
      [["←", "→"], "keyImages"],
      [["1", "…", "5"], "keyPresets"],
      [["i"], "invert"],
      [["t"], "rotate"],
      [["r"], "reset"],
      [["l"], "length"],
      [["a"], "angle"],
      [["Esc"], "keyStopMeasuring"],
      [["h", "Space"], "heatMap"],
      [["m"], "organMasks"],
      [["[", "]"], "keyOpacity"],
    ],
  ],
  [
    "study",
    [
      [["f"], "findings"],
      [["d"], "report"],
      [["q"], "assistant"],
      [["n"], "keyNextStudy"],
      [["Backspace"], "keyBack"],
    ],
  ],
];

export function Shortcuts({ onClose }: { onClose: () => void }) {
  const words = useWords();
  return (
    <Dialog title={words("keyboardHelp")} onClose={onClose}>
      <div className="shortcuts">
        {GROUPS.map(([title, keys]) => (
          <section key={title}>
            <h3>{words(title)}</h3>
            <dl>
              {keys.map(([names, meaning]) => (
                <div key={meaning}>
                  <dt>
                    {names.map((name) => (
                      <Keys key={name}>{name}</Keys>
                    ))}
                  </dt>
                  <dd>{words(meaning)}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
        <p className="dim small">{words("mouseHelp")}</p>
      </div>
    </Dialog>
  );
}
