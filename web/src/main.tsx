import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Refused } from "./api/client";
import { App } from "./app";
import { sessionQuery, studyQuery } from "./api/queries";
import { fetchStudyPage } from "./pages";
import { preferences } from "./preferences";
import { placesOf, previewOf, startOf } from "./study/stage";
import "@fontsource-variable/inter/wght.css";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/worklist.css";
import "./styles/study.css";
import "./styles/viewer.css";
import "./styles/tables.css";
import "./styles/print.css";

const refusedForGood = (error: Error) =>
  error instanceof Refused && error.status >= 400 && error.status < 500;

const client = new QueryClient({
  defaultOptions: {
    queries: {
      retry: (count, error) => !refusedForGood(error) && count < 2,
      refetchOnWindowFocus: false,
    },
  },
});

// All that the first page needs is asked for at once, not one after the other.
void client.prefetchQuery(sessionQuery);
const study = location.hash.match(/^#\/study\/(\w+)/)?.[1];
if (study !== undefined) {
  fetchStudyPage();
  client
    .fetchQuery(studyQuery(study))
    .then((found) => {
      const places = placesOf(found);
      const picture = previewOf(places[startOf(places, places[0]?.file)]);
      if (picture) new Image().src = picture;
    })
    .catch(() => undefined); // the page of the study says what is wrong
}

document.documentElement.lang = preferences().language;
const root = document.getElementById("root");
if (root === null) throw new Error("the page has no root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
);
