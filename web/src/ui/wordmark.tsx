/** The name of the project, drawn as on every page that it writes: a film with a drop, and strokes of one width. */

const FILM = "M3 1h15l6 6v25a2 2 0 0 1-2 2H3a2 2 0 0 1-2-2V3a2 2 0 0 1 2-2z";
const DROP = "M12.5 8.5c3.6 4.7 6 7.9 6 11a6 6 0 0 1-12 0c0-3.1 2.4-6.3 6-11z";
const WET = [
  "M36 13l4.6 14L45 14.5 49.4 27 54 13",
  "M59.5 20H73.5A7 7 0 1 0 71 25.4",
  "M80.5 7V23.5A3.5 3.5 0 0 0 84 27H85.5M77.5 13H85.5",
];
const READ = [
  "M92.5 27V13M92.5 20A7 7 0 0 1 99.5 13",
  "M103 20H117A7 7 0 1 0 114.5 25.4",
  "M136 13V27M136 20A7 7 0 1 0 122 20 7 7 0 1 0 136 20",
  "M157 5V27M157 20A7 7 0 1 0 143 20 7 7 0 1 0 157 20",
];

export function Wordmark() {
  return (
    <svg className="wordmark" viewBox="0 0 159 35" role="img" aria-label="wetread">
      <path className="wm-film" d={FILM} />
      <path className="wm-drop" d={DROP} />
      {WET.map((path) => (
        <path key={path} className="wm-wet" d={path} />
      ))}
      {READ.map((path) => (
        <path key={path} d={path} />
      ))}
    </svg>
  );
}
