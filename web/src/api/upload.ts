/** Upload with progress, which `fetch` does not tell. */
import { currentToken, Refused, refusal, type Upload } from "./client";

export function upload(files: readonly File[], onProgress: (share: number) => void): Promise<Upload> {
  const form = new FormData();
  for (const file of files) form.append("files", file, "file"); // a file's name may tell of a patient
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/api/v1/uploads");
    request.setRequestHeader("X-CSRF-Token", currentToken());
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () =>
      request.status === 201
        ? resolve(request.response as Upload)
        : reject(refusal(request.response, request.status));
    request.onerror = () => reject(new Refused("unreachable", "The service does not answer.", "", 0));
    request.send(form);
  });
}
