/** Who may log in, as what, and to which worklists; for admins. */
import { type FormEvent, useState } from "react";
import type { Session, User, UserChange } from "../api/client";
import { useAddUser, useChangeUser, useOneTime, useUsers } from "../api/queries";
import { moment, type TextKey, useWords, type Words } from "../i18n";
import { useNow } from "../ui/now";
import { Badge, Button, Dialog, Problem, Spinner } from "../ui/parts";
import { Secret } from "../ui/secret";

type Role = User["role"];
const ROLES: Role[] = ["reader", "annotator", "admin"];
const ROLE_NAMES: Record<Role, TextKey> = {
  reader: "roleReader",
  annotator: "roleAnnotator",
  admin: "roleAdmin",
};
const SHORTEST = 12;

export default function Users({ session }: { session: Session }) {
  const words = useWords();
  const users = useUsers();
  const [adding, setAdding] = useState(false);
  const [chosen, setChosen] = useState<User | null>(null);
  if (session.role !== "admin") return <p className="dim padded">{words("needsAdmin")}</p>;
  if (users.isPending) return <Spinner label={words("loading")} />;
  if (users.isError) return <Problem error={users.error} onRetry={() => users.refetch()} />;
  return (
    <div className="page">
      <header className="page-head">
        <h1>{words("users")}</h1>
        <Button kind="main" onClick={() => setAdding(true)}>
          {words("addUser")}
        </Button>
      </header>
      <p className="dim small">{words("rolesHint")}</p>
      <table className="plain-table">
        <thead>
          <tr>
            <th scope="col">{words("userName")}</th>
            <th scope="col">{words("role")}</th>
            <th scope="col">{words("worklists")}</th>
            <th scope="col">{words("status")}</th>
            <th scope="col">{words("since")}</th>
            <th scope="col">
              <span className="hidden">{words("actions")}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {users.data.map((user) => (
            <Line
              key={user.id}
              user={user}
              own={user.name === session.name}
              onChoose={() => setChosen(user)}
            />
          ))}
        </tbody>
      </table>
      {adding && <Add onClose={() => setAdding(false)} />}
      {chosen && <Change user={chosen} own={chosen.name === session.name} onClose={() => setChosen(null)} />}
    </div>
  );
}

function Line({ user, own, onChoose }: { user: User; own: boolean; onChoose: () => void }) {
  const words = useWords();
  return (
    <tr data-testid="user">
      <th scope="row">
        {user.name} {own && <span className="dim">{words("thatIsYou")}</span>}
      </th>
      <td>{words(ROLE_NAMES[user.role])}</td>
      <td className="dim">{traysText(user.trays, words)}</td>
      <td>
        <State user={user} />
      </td>
      <td className="num">{moment(user.created, words.language)}</td>
      <td className="number">
        <Button kind="quiet" aria-label={words("changeUser", { name: user.name })} onClick={onChoose}>
          {words("change")}
        </Button>
      </td>
    </tr>
  );
}

function State({ user }: { user: User }) {
  const words = useWords();
  const now = useNow();
  if (user.disabled) return <Badge tone="fail">{words("disabled")}</Badge>;
  if (user.locked_until > now) return <Badge tone="warn">{words("locked")}</Badge>;
  return (
    <span className="row">
      <Badge tone="pass">{words("active")}</Badge>
      {user.openid && <Badge>OpenID</Badge>}
    </span>
  );
}

function traysText(trays: readonly string[], words: Words): string {
  if (trays.includes("*")) return words("allWorklists");
  return trays.join(", ") || words("noWorklist");
}

const traysOf = (text: string): string[] =>
  text
    .split(",")
    .map((one) => one.trim())
    .filter(Boolean);

function Add({ onClose }: { onClose: () => void }) {
  const words = useWords();
  const add = useAddUser();
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("reader");
  const [trays, setTrays] = useState("*");
  const [password, setPassword] = useState("");
  const send = (event: FormEvent) => {
    event.preventDefault();
    const body = { name, role, trays: traysOf(trays), password: password || null };
    add.mutate(body, { onSuccess: onClose });
  };
  return (
    <Dialog title={words("addUser")} onClose={onClose}>
      <form className="form" onSubmit={send}>
        {add.isError && <Problem error={add.error} />}
        <label>
          {words("userName")}
          <input
            required
            maxLength={64}
            autoComplete="off"
            value={name}
            onChange={(e) => setName(e.target.value)}
          />
        </label>
        <RoleField role={role} onChange={setRole} />
        <TraysField trays={trays} onChange={setTrays} />
        <PasswordField password={password} onChange={setPassword} required={false} />
        <div className="row">
          <Button kind="main" type="submit" disabled={add.isPending}>
            {words("addUser")}
          </Button>
          <Button onClick={onClose}>{words("cancel")}</Button>
        </div>
      </form>
    </Dialog>
  );
}

function Change({ user, own, onClose }: { user: User; own: boolean; onClose: () => void }) {
  const words = useWords();
  const change = useChangeUser();
  const [role, setRole] = useState<Role>(user.role);
  const [trays, setTrays] = useState(user.trays.join(", "));
  const send = (body: UserChange) => change.mutate({ id: user.id, body }, { onSuccess: onClose });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    send({ role, trays: traysOf(trays) });
  };
  return (
    <Dialog title={words("changeUser", { name: user.name })} onClose={onClose}>
      <div className="form">
        {change.isError && <Problem error={change.error} />}
        <form className="form-part" onSubmit={submit}>
          <RoleField role={role} onChange={setRole} disabled={own} />
          <TraysField trays={trays} onChange={setTrays} />
          <div className="row">
            <Button kind="main" type="submit" disabled={change.isPending}>
              {words("save")}
            </Button>
            {!own && (
              <Button kind="danger" onClick={() => send({ disabled: !user.disabled })}>
                {words(user.disabled ? "enable" : "disable")}
              </Button>
            )}
          </div>
          <p className="dim small">{words("changeEndsLogIns")}</p>
        </form>
        <Reset user={user} busy={change.isPending} onPassword={(password) => send({ password })} />
      </div>
    </Dialog>
  );
}

/** A new password, or an address that logs in once. */
function Reset(props: { user: User; busy: boolean; onPassword: (password: string) => void }) {
  const words = useWords();
  const once = useOneTime();
  const [password, setPassword] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    props.onPassword(password);
  };
  return (
    <div className="form-part">
      <h3>{words("resetLogIn")}</h3>
      <form className="form-line" onSubmit={submit}>
        <PasswordField password={password} onChange={setPassword} required />
        <Button type="submit" disabled={props.busy}>
          {words("setPassword")}
        </Button>
      </form>
      {once.data ? (
        <Secret
          label={words("oneTimeAddress")}
          text={`${location.origin}${once.data.address}`}
          hint={words("oneTimeAddressHint", { when: moment(once.data.expires, words.language) })}
        />
      ) : (
        <div>
          <Button disabled={once.isPending || props.user.disabled} onClick={() => once.mutate(props.user.id)}>
            {words("makeOneTimeAddress")}
          </Button>
        </div>
      )}
      {once.isError && <Problem error={once.error} />}
    </div>
  );
}

function RoleField(props: { role: Role; onChange: (role: Role) => void; disabled?: boolean }) {
  const words = useWords();
  return (
    <label>
      {words("role")}
      <select
        value={props.role}
        disabled={props.disabled === true}
        onChange={(e) => props.onChange(e.target.value as Role)}
      >
        {ROLES.map((one) => (
          <option key={one} value={one}>
            {words(ROLE_NAMES[one])}
          </option>
        ))}
      </select>
    </label>
  );
}

function TraysField({ trays, onChange }: { trays: string; onChange: (trays: string) => void }) {
  const words = useWords();
  return (
    <label>
      {words("worklists")}
      <input value={trays} autoComplete="off" onChange={(e) => onChange(e.target.value)} />
      <span className="dim small">{words("worklistsHint")}</span>
    </label>
  );
}

function PasswordField(props: { password: string; onChange: (password: string) => void; required: boolean }) {
  const words = useWords();
  return (
    <label>
      {words(props.required ? "newPassword" : "passwordOptional")}
      <input
        type="password"
        autoComplete="new-password"
        required={props.required}
        minLength={SHORTEST}
        maxLength={1024}
        value={props.password}
        onChange={(e) => props.onChange(e.target.value)}
      />
    </label>
  );
}
