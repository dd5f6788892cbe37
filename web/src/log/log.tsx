/** The audit log: who did what to what; and whether its chain of hashes holds. */
import { useState } from "react";
import { useAuditCheck, useAuditLog } from "../api/queries";
import { moment, useWords } from "../i18n";
import { Badge, Button, Problem, Spinner } from "../ui/parts";

export default function AuditLog() {
  const words = useWords();
  const [pages, setPages] = useState(1);
  const [checking, setChecking] = useState(false);
  const log = useAuditLog(pages);
  const check = useAuditCheck(checking);
  if (log.isPending) return <Spinner label={words("loading")} />;
  if (log.isError) return <Problem error={log.error} onRetry={() => log.refetch()} />;
  return (
    <div className="page">
      <header className="page-head">
        <h1>{words("auditLog")}</h1>
        {check.data && (
          <Badge tone={check.data.broken === null ? "pass" : "fail"}>
            {check.data.broken === null
              ? words("chainHolds", { n: Number(check.data.entries) })
              : words("chainBroken", { n: String(check.data.broken) })}
          </Badge>
        )}
        <Button onClick={() => (checking ? check.refetch() : setChecking(true))}>
          {words("checkChain")}
        </Button>
      </header>
      <table className="plain-table">
        <thead>
          <tr>
            <th scope="col" className="number">
              #
            </th>
            <th scope="col">{words("when")}</th>
            <th scope="col">{words("who")}</th>
            <th scope="col">{words("what")}</th>
            <th scope="col">{words("object")}</th>
            <th scope="col">{words("detail")}</th>
            <th scope="col">{words("hash")}</th>
          </tr>
        </thead>
        <tbody>
          {log.data.lines.map((line) => (
            <tr key={line.seq}>
              <td className="number">{line.seq}</td>
              <td className="num">{moment(line.at, words.language)}</td>
              <td>{line.actor}</td>
              <td>{line.action}</td>
              <td>
                <code>{line.object.slice(0, 12)}</code>
              </td>
              <td className="dim">{detailOf(line.detail)}</td>
              <td>
                <code title={line.hash}>{line.hash.slice(0, 10)}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {log.data.next !== null && pages < 5 && (
        <div className="more">
          <Button onClick={() => setPages(pages + 1)}>{words("showMore")}</Button>
        </div>
      )}
    </div>
  );
}

function detailOf(detail: Record<string, unknown>): string {
  return Object.entries(detail)
    .map(([name, value]) => `${name} ${String(value).slice(0, 24)}`)
    .join(", ");
}
